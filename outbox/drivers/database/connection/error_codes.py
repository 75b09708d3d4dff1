"""The error numbers of MySQL, MariaDB and proxies, and the words of SQLite, by what they mean for outbox.

An error that is in none of these lists is taken for an outage.
"""

from __future__ import annotations

CONTENDED = {
    1020,  # the record changed since it was read (MariaDB)
    1205,  # lock wait timeout
    1213,  # deadlock; with Galera at any statement and at COMMIT, when the transaction of another node was first
    1412,  # the definition of a table changed in the middle of a transaction
    3101,  # like 1213, at COMMIT, from group replication
}
COMMIT_FAILED, CONTENDED_INSIDE = 1180, ("Got error 146 ", "Got error 149 ")
"""An error of the storage engine at COMMIT: 146 is its lock wait timeout, 149 its deadlock. MySQL says so when the
transaction of another member of the group was first and has undone this one."""

OUT_OF_OFFICE = {
    1047,  # a node of Galera without a majority
    1053,  # shutting down
    1290,  # read only
    1836,  # read only
    3032,  # offline mode
    3100,  # a member of group replication that cannot ask the others
    3168,  # a member that has not joined yet
}
FULL = {
    3,  # no space left
    1021,  # no space left
    1026,  # no space left
    1037,  # no memory left
    1041,  # no memory left
    1114,  # the table is full
    1206,  # no room left for locks
}
ENGINE_FAILED, FULL_INSIDE = 1030, "error 28 "
"""An error of the storage engine: 28 is that no space is left."""
NOT_PREPARED = {
    1243,  # no such prepared statement: a proxy has gone on to another server
    1615,  # the table has changed again and again while the server prepared the statement anew
}
TOO_LONG = {
    1969,  # took longer than the server allows (MariaDB)
    3024,  # took longer than the server allows
}
UNREACHABLE = {
    1040,  # too many connections
    1105,  # unknown; a proxy that has lost its server
    1129,  # this host is blocked after errors
    1135,  # no thread left for a connection
    1152,  # the connection was aborted
    *range(1158, 1162),  # the network
    1203,  # too many connections of this user
    1226,  # too many uses of this user
    1317,  # the query was interrupted
    1815,  # an internal error
    1927,  # the connection was killed
    *range(2000, 2059),  # of the client
    3169,  # the session was killed
    4031,  # idle too long
    9001,  # ProxySQL has no server behind it
    9006,  # ProxySQL has lost the connection to its server
    9501,  # a proxy that is in maintenance
    *TOO_LONG,
    *FULL,
    *OUT_OF_OFFICE,
}

NO_SUCH_TABLE = {1051, 1146}
OTHER_VERSION = {
    1054,  # no such column
    1176,  # no such index
}
STATEMENTS_LOGGED = 1665
"""InnoDB refuses to write at READ COMMITTED while binlog_format is STATEMENT."""
NO_ACCESS = {
    *(1044, 1045, 1698),  # access denied
    *(1046, 1049, 1102),  # no, an unknown or an impossible database
    1130,  # this host may not connect
    *(1142, 1143, 1227, 1370, 1410),  # a missing grant
    *(1251, 1275, 1524, 2059),  # a way to log in that one side does not have
    *(1820, 1862),  # the password has expired
    *(3118, 4151),  # the account is locked
    3159,  # only over TLS
}
MISCONFIGURED = NO_ACCESS | NO_SUCH_TABLE | OTHER_VERSION | {STATEMENTS_LOGGED}
NEEDS_NEW_CONNECTION = OUT_OF_OFFICE | NO_ACCESS
"""After a failover, another server answers at the same address. A connection keeps the rights with which it was opened,
and has no database any more when that was dropped and made again."""
BAD_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "Hostname mismatch")

PACKET_TOO_LARGE = 1153
NO_ASCII = {1267, 3854}
"""A text that is none is compared with a column of ASCII. Of the first, the message says so."""
FINAL = {
    PACKET_TOO_LARGE,
    *NO_ASCII,
    *(1064, 1065, 1149),  # syntax
    *(1110, 1136, 1210, 1235, 1241, 1289, 1305, 1327, 1390),  # wrong or unknown parts of a statement
    *(1115, 1253, 1270, 1271, 1273, 1300),  # character sets
    *(1193, 1231, 1238),  # variables
    *(1048, 1263, 1364),  # NULL, or no default
    *(1062, 1169, 1586),  # a key that is there already
    *(1118, 1264, 1265, 1292, 1365, 1366, 1367, 1406, 1411, 1425, 1426, 1441, 1690),  # a value that does not fit
    *(1216, 1217, 1451, 1452, 3819, 4025),  # a constraint
    *range(3140, 3159),  # JSON (MySQL)
    *range(4036, 4045),  # JSON (MariaDB)
}
"""They are about the statement or its values, so that the same again cannot succeed."""

NO_TABLE_ON_SQLITE = ("no such table",)
NO_COLUMN_ON_SQLITE = ("no such column", "has no column")
NO_FILE_ON_SQLITE = ("file is not a database", "unable to open database file")
READ_ONLY_ON_SQLITE = "readonly database"
FAILED_ON_SQLITE = "disk I/O error"
MISCONFIGURED_ON_SQLITE = (*NO_TABLE_ON_SQLITE, *NO_COLUMN_ON_SQLITE, *NO_FILE_ON_SQLITE, READ_ONLY_ON_SQLITE)
NEEDS_NEW_CONNECTION_ON_SQLITE = (READ_ONLY_ON_SQLITE, FAILED_ON_SQLITE)
"""A file is written, or is not, for as long as it is open, as it could be when it was opened."""
FINAL_ON_SQLITE = ("syntax error", "too many SQL variables", "malformed JSON", "too big", "datatype mismatch")
