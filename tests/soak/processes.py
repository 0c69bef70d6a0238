"""What runs under a state folder, found in /proc by the mark in its environment or by its arguments."""
import os
import pathlib
import signal

PROC = pathlib.Path("/proc")


def read(pid, name):
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""


def alive(pid):
    stat = read(pid, "stat")
    return bool(stat) and stat.rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X")


def listing(state):
    """[(pid, program, attempt folder)] of every process that belongs to an attempt under state; program is shim,
    mpirun or rank."""
    found, mark, here = [], f"HEBB_ATTEMPT={state}/".encode(), f"{state}/jobs/".encode()
    for entry in os.listdir(PROC):
        if not entry.isdigit():
            continue
        words = read(entry, "cmdline").split(b"\0")
        if not words[0]:
            continue
        program = os.path.basename(words[0])
        if program == b"hebb-shim" and b"--folder" in words:
            folder = words[words.index(b"--folder") + 1]
            if folder.startswith(here):
                number = words[words.index(b"--attempt") + 1]
                found.append((int(entry), "shim", (folder + b"/attempt-" + number).decode()))
            continue
        environment = read(entry, "environ")
        at = environment.find(mark)
        if at >= 0 and (at == 0 or environment[at - 1] == 0):
            folder = environment[at + 13:environment.index(b"\0", at)].decode()
            found.append((int(entry), "mpirun" if program == b"mpirun" else "rank", folder))
    return [item for item in found if alive(item[0])]


def marked(folder):
    """listing() for one job folder that is not under a state."""
    found, mark = [], f"HEBB_ATTEMPT={folder}/".encode()
    for entry in os.listdir(PROC):
        environment = read(entry, "environ") if entry.isdigit() else b""
        at = environment.find(mark)
        if at >= 0 and (at == 0 or environment[at - 1] == 0) and alive(entry):
            found.append((int(entry), "rank", environment[at + 13:environment.index(b"\0", at)].decode()))
    return found


def kill(pid, how=signal.SIGKILL):
    """False if it was gone."""
    if not alive(pid):
        return False
    try:
        os.kill(pid, how)
        return True
    except ProcessLookupError:
        return False


def shared_files():
    """Names in /dev/shm and /tmp that Open MPI or hebb-shim make."""
    return {str(p) for folder, patterns in (("/dev/shm", ("vader_segment*", "hebb-*")), ("/tmp", ("ompi.*", "openmpi-*")))
            for pattern in patterns for p in pathlib.Path(folder).glob(pattern)}
