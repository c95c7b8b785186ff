"""The steps of the main job, a module each: data, plan, train, tune, register, serve, smoke."""
