"""What goes where: workload and cluster in, a parallel plan and exact devices out."""
