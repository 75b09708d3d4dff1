"""What operators and applications ask of the tables: jobs, queues, failed jobs, workers, health."""
