"""The example application: a small shop and a sensor service whose jobs ride on outbox."""
