-- state-1.sql: the database as the hebbd of this version made it, with rows. Never changed.
CREATE TABLE jobs( row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, priority INTEGER NOT NULL, cores INTEGER NOT NULL, gpus INTEGER NOT NULL, attempt INTEGER NOT NULL, failures INTEGER NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, started_ms INTEGER NOT NULL, finished_ms INTEGER NOT NULL, retry_at_ms INTEGER NOT NULL, spec TEXT NOT NULL) STRICT;
CREATE INDEX jobs_by_state ON jobs(state, priority DESC, row);
CREATE TABLE attempts( job TEXT NOT NULL REFERENCES jobs(id), attempt INTEGER NOT NULL, started_ms INTEGER NOT NULL, finished_ms INTEGER, code INTEGER, signal INTEGER, rank INTEGER, reason TEXT, PRIMARY KEY(job, attempt)) STRICT, WITHOUT ROWID;
CREATE TABLE intents( job TEXT NOT NULL REFERENCES jobs(id), kind TEXT NOT NULL, attempt INTEGER NOT NULL, created_ms INTEGER NOT NULL, PRIMARY KEY(job, kind)) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency( key TEXT NOT NULL PRIMARY KEY, body_hash TEXT NOT NULL, job TEXT NOT NULL REFERENCES jobs(id), created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE audit( seq INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, job TEXT NOT NULL, action TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE INDEX audit_by_job ON audit(job, seq);
CREATE TABLE probe(one INTEGER PRIMARY KEY CHECK(one = 1), time_ms INTEGER NOT NULL) STRICT;
INSERT INTO jobs VALUES(1,'00000000000000a1','first','succeeded','',0,2,0,1,0,1000,2000,1100,2000,0,'{"name":"first"}');
INSERT INTO jobs VALUES(2,'00000000000000a2','second','queued','',5,1,0,0,0,1001,1001,0,0,0,'{"name":"second"}');
INSERT INTO attempts VALUES('00000000000000a1',1,1100,2000,0,0,0,'done');
INSERT INTO intents VALUES('00000000000000a2','start',1,1002);
INSERT INTO idempotency VALUES('key-1','hash-1','00000000000000a1',1000);
INSERT INTO audit VALUES(1,1000,'00000000000000a1','submit','first');
PRAGMA user_version=1;
