"""Wake-ups from the binary log of MySQL and MariaDB: the server tells of every commit, whoever made it."""
