"""hebbd as systemd's service: the protocol of readiness and watchdog, the token from a credential, and the units: verified,
and as closed as they are to be."""
import contextlib
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from service import ROOT

UNITS = ROOT / "deploy" / "systemd"
EXPOSURE_MAX, EXPOSURE_GPU_MAX = 1.2, 2.0
TOKEN = "0123456789abcdef" * 4


def words(manager, wanted, seconds=20):
    """Reads messages until one has the word; all of them."""
    seen = []
    manager.settimeout(seconds)
    while not any(wanted in message for message in seen):
        seen.append(manager.recv(4096).decode())
    return seen


@contextlib.contextmanager
def daemon(binaries, folder, manager, token):
    credentials = folder / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / "token").write_text(token)
    environment = {"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "300000",
                   "CREDENTIALS_DIRECTORY": str(credentials), "STATE_DIRECTORY": str(folder / "state"),
                   "CONFIGURATION_DIRECTORY": str(folder)}
    log = open(folder / "log", "ab")
    process = subprocess.Popen([binaries / "hebbd", "--listen", "127.0.0.1:0", "--port-file", folder / "port"],
                               env=environment, stdout=log, stderr=log)
    try:
        ready = words(manager, "READY=1")
        assert "STATUS=" in ready[-1], ready
        yield process
    finally:
        process.kill()
        process.wait()


def status(folder, token):
    port = (folder / "port").read_text().strip()
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}",
               f"http://127.0.0.1:{port}/v1/jobs"]
    return subprocess.check_output(command, text=True)


def protocol(binaries, folder):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(folder / "notify"))
    with daemon(binaries, folder, manager, TOKEN + "\n") as process:
        assert status(folder, TOKEN) == "200"
        assert status(folder, "f" * 64) == "401"
        assert not (folder / "state" / "token").exists()
        words(manager, "WATCHDOG=1")
        words(manager, "WATCHDOG=1")
        process.send_signal(signal.SIGHUP)
        words(manager, "RELOADING=1")
        words(manager, "READY=1")
        process.send_signal(signal.SIGTERM)
        words(manager, "STOPPING=1")
        assert process.wait(timeout=20) == 0
    with daemon(binaries, folder, manager, "-"):  # what the unit gives where there is no token
        assert status(folder, (folder / "state" / "token").read_text().strip()) == "200"


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True)


def exposure(unit):
    answer = analyze("security", "--offline=true", str(unit)).stdout
    return float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", answer).group(1))


def units(binaries, folder):
    where = folder / "units"
    where.mkdir()
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.timer")):
        text = unit.read_text().replace("/usr/bin/hebbd", str(binaries / "hebbd"))
        (where / unit.name).write_text(text.replace("/usr/lib/hebb/backup", str(UNITS / "hebb-backup")))
    answer = analyze("verify", "--man=no", "--recursive-errors=no", *map(str, where.iterdir()))
    assert answer.returncode == 0 and "hebb" not in answer.stderr, answer.stderr
    alone = exposure(where / "hebbd.service")
    shutil.copytree(UNITS / "hebbd.service.d", where / "hebbd.service.d")
    gpu = exposure(where / "hebbd.service")
    assert alone <= EXPOSURE_MAX and gpu <= EXPOSURE_GPU_MAX, (alone, gpu)
    return alone, gpu


def main():
    binaries = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="hebb-systemd-") as name:
        folder = pathlib.Path(name)
        (folder / "hebbd.json").write_text("{}")
        protocol(binaries, folder)
        alone, gpu = units(binaries, folder)
    print(f"systemd: ok, exposure {alone}, with GPUs {gpu}")


if __name__ == "__main__":
    main()
