"""What pages show, read from the stores: one file for each subject. Pages read nothing anywhere else."""

from outbox.web.readings.readings import Readings as Readings
