"""Checks of Dockerfile, docker-compose.yml and deploy/kubernetes, for scripts/check-deploy."""
