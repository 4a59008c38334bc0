"""Starting training jobs: on this machine (`python -m launch.local`), under Slurm, on Kubernetes and on Vertex AI."""
