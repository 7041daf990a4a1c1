"""A real Kubernetes cluster on one Linux machine, without Docker. See ../README.md."""
