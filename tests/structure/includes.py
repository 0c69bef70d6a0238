"""Who may include whom: docs/architecture.md's table as a test. Exit 1 and one line per broken rule."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Folder -> folders of ours that its files may include, itself always. The longest prefix counts.
ALLOWED = {
    "proto/base": [],
    "proto/json": ["proto/base"],
    "proto/format": ["proto/base", "proto/json"],
    "proto/msg": ["proto/base", "proto/json"],
    "engine": ["proto/base", "proto/format", "proto/json"],
    "worker": ["proto", "engine"],
    "worker/tools": ["proto", "engine", "worker"],
    "daemon": ["proto"],
    "daemon/cli": ["proto"],
}

# Library header -> files that may include it (regular expressions on the path).
LIBRARIES = {
    r"mpi\.h": r"worker/comm_mpi\.c",
    r"nccl\.h": r"worker/comm_nccl\.c",
    r"cuda.*\.h|cublas.*\.h|cusparse.*\.h": r"engine/cuda/.*",
    r"sqlite3\.h": r"daemon/store.*\.[ch]",
    r"microhttpd\.h": r"daemon/http.*\.[ch]",
    r"curl/.*": r"daemon/cli/client\.c|daemon/webhook_send\.c",
    r"openssl/.*": r"daemon/secret\.c",
    r"systemd/.*": r"daemon/notify\.c",
    r"cblas\.h|openblas.*": r"engine/cpu/.*",
    r"cjson/.*": r"proto/(json|msg|format)/.*|daemon/.*|worker/.*|engine/(checkpoint|model_(im|ex)port).*",
    r"xxhash\.h": r"proto/format/.*",
}


def owner(path):
    fits = [folder for folder in ALLOWED if path == folder or path.startswith(folder + "/")]
    return max(fits, key=len, default=None)


def faults_of(path):
    name = path.relative_to(ROOT).as_posix()
    folder = owner(name)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        kind, header = match.groups()
        if kind == '"':
            if not (ROOT / header).exists():
                yield f'{name}:{number}: "{header}" is not a path from the root of the project'
                continue
            target = owner(header)
            allowed = [folder, *ALLOWED[folder]]
            if not any(target == a or target.startswith(a + "/") for a in allowed):
                yield f"{name}:{number}: {folder} may not include {header}"
        else:
            for library, files in LIBRARIES.items():
                if re.fullmatch(library, header) and not re.fullmatch(files, name):
                    yield f"{name}:{number}: <{header}> belongs in {files} only"


def main():
    files = [f for folder in ("proto", "engine", "worker", "daemon") for f in sorted((ROOT / folder).rglob("*")) if f.suffix in (".c", ".h", ".cu", ".cuh")]
    faults = [fault for f in files for fault in faults_of(f)]
    print("\n".join(faults) or f"{len(files)} files keep the rules")
    return 1 if faults or not files else 0


sys.exit(main())
