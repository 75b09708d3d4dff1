"""Wake-ups from the binary log of MySQL and MariaDB, which contains the commits of every client."""
