"""What operators and applications ask of Redis: jobs, queues, failed jobs, workers, health."""
