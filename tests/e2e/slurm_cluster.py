"""A Slurm cluster of two nodes on this machine, in a folder of its own: munged, slurmctld, two slurmd. Nothing of it
touches the machine's own configuration, and all of it ends with it."""
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

CONF = """ClusterName=hebb
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={base}/munge/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
EnforcePartLimits=NO
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=30
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd-%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=3600
TCPTimeout=1
MessageTimeout=5
KillWait=5
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=small Nodes=n1 MaxTime=INFINITE State=UP
"""
NODE = "NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 SocketsPerBoard=1 CoresPerSocket=4 " \
       "ThreadsPerCore=1 RealMemory=1000 State=UNKNOWN"


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Cluster:
    def __init__(self, base):
        self.base = pathlib.Path(base)
        self.conf = self.base / "slurm.conf"
        self.processes = {}
        for name in ("munge", "state", "spool-n1", "spool-n2", "log"):
            (self.base / name).mkdir(mode=0o755)
        for path in [self.base, *self.base.iterdir()]:  # munged insists, whatever the umask
            path.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        nodes = "\n".join(NODE.format(n=n, host=host, port=free_port()) for n in (1, 2))
        user = "root" if os.geteuid() == 0 else subprocess.check_output(["id", "-un"], text=True).strip()
        self.conf.write_text(CONF.format(host=host, base=self.base, controller=free_port(), user=user, nodes=nodes))
        self.conf.chmod(0o644)
        self.environment = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "SLURM_CONF": str(self.conf)}

    def run(self, name, *command):
        log = open(self.base / "log" / f"{name}.out", "ab")
        self.processes[name] = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log,
                                                stderr=log, start_new_session=True)

    def start(self, name):
        if name == "slurmctld":
            self.run(name, "slurmctld", "-D", "-f", self.conf)
        else:
            self.run(name, "slurmd", "-D", "-f", self.conf, "-N", name)

    def start_all(self):
        munge = self.base / "munge"
        key = munge / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.run("munged", "munged", "--foreground", f"--key-file={key}", f"--socket={munge}/munge.socket",
                 f"--pid-file={munge}/munged.pid", f"--log-file={munge}/munged.log", f"--seed-file={munge}/munged.seed")
        until(lambda: (munge / "munge.socket").exists(), 10, "munged starts")
        for name in ("slurmctld", "n1", "n2"):
            self.start(name)
        until(self.idle, 30, "the nodes are idle")

    def idle(self):
        return self.ask("sinfo", "-h", "-p", "main", "-o", "%t %D").split() == ["idle", "2"]

    def kill(self, name, how=signal.SIGKILL):
        process = self.processes[name]
        process.send_signal(how)
        process.wait()

    def ask(self, *command):
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def jobs(self):
        """(number, name, state, reason, comment) of every job that Slurm knows."""
        lines = self.ask("squeue", "-h", "-t", "all", "-o", "%i|%j|%T|%r|%k").splitlines()
        return [tuple(line.split("|")) for line in lines]

    def stop(self):
        self.ask("scancel", "--state=RUNNING,PENDING", "-u", "root,nobody")
        for name in ("n1", "n2", "slurmctld", "munged"):
            process = self.processes.get(name)
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for path in pathlib.Path("/proc").glob("[0-9]*/environ"):  # steps that outlive a killed slurmd
            with contextlib.suppress(OSError):
                if f"SLURM_CONF={self.conf}".encode() in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)


def until(condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"too slow: {what}")


@contextlib.contextmanager
def cluster(folder):
    for program in ("munged", "slurmctld", "slurmd"):
        assert shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"), f"{program} is missing: deploy/setup --check"
    it = Cluster(folder)
    try:
        it.start_all()
        yield it
    finally:
        it.stop()
