-- series-1.sql: the database as the hebbd of this version made it, with rows. Never changed.
CREATE TABLE meta(key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('rebuild', 1);
CREATE TABLE streams( stream INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, offset INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0, bad_lines INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0, step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0, step_ms REAL, tokens_per_s REAL, loss REAL, eval_loss REAL) STRICT;
CREATE TABLE events( stream INTEGER NOT NULL REFERENCES streams(stream), seq INTEGER NOT NULL, type TEXT NOT NULL, line TEXT NOT NULL, PRIMARY KEY(stream, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE steps( stream INTEGER NOT NULL REFERENCES streams(stream), step INTEGER NOT NULL, tokens INTEGER, loss REAL, grad_norm REAL, lr REAL, step_ms REAL, tokens_per_s REAL, PRIMARY KEY(stream, step)) STRICT, WITHOUT ROWID;
CREATE TABLE evals( stream INTEGER NOT NULL REFERENCES streams(stream), step INTEGER NOT NULL, split TEXT NOT NULL, loss REAL, perplexity REAL, tokens INTEGER, PRIMARY KEY(stream, split, step)) STRICT, WITHOUT ROWID;
CREATE TABLE refreshes( stream INTEGER NOT NULL REFERENCES streams(stream), refresh INTEGER NOT NULL, step INTEGER NOT NULL, zeta REAL, ms REAL, PRIMARY KEY(stream, refresh)) STRICT, WITHOUT ROWID;
CREATE TABLE refresh_layers( stream INTEGER NOT NULL, refresh INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, density REAL, removed INTEGER, changed_groups INTEGER, flip_rate REAL, explored REAL, patterns TEXT, dead_columns INTEGER, hash TEXT, PRIMARY KEY(stream, refresh, position), FOREIGN KEY(stream, refresh) REFERENCES refreshes(stream, refresh) ON DELETE CASCADE) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_layers_by_name ON refresh_layers(stream, name, refresh);
CREATE TABLE checkpoints( stream INTEGER NOT NULL REFERENCES streams(stream), step INTEGER NOT NULL, path TEXT NOT NULL, bytes INTEGER, ms REAL, loss REAL, time TEXT NOT NULL, PRIMARY KEY(stream, step)) STRICT, WITHOUT ROWID;
UPDATE meta SET value=0 WHERE key='rebuild';
INSERT INTO streams(stream,id,offset,seq,attempt,done,step,steps,tokens,loss) VALUES(1,'00000000000000a1',300,3,1,1,2,2,20,4.5);
INSERT INTO events VALUES(1,1,'start','{"seq":1,"type":"start"}');
INSERT INTO steps VALUES(1,1,10,5.5,1.0,0.001,100.0,100.0);
INSERT INTO steps VALUES(1,2,20,4.5,1.0,0.001,100.0,100.0);
INSERT INTO checkpoints VALUES(1,2,'checkpoints/step-00000002',100,1.0,4.5,'2026-11-23T01:00:00.000Z');
PRAGMA user_version=1;
