"""From a module on the meta device to a chain of blocks: parts, record of what ran, tensor cuts, blocks."""
