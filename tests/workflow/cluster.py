"""A Slurm of one node on this machine: controller, node, munge. It writes /etc/slurm and wants root: for CI alone."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
SYSTEM = Path("/etc/slurm")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
# Without accounts, control groups or systemd; finished jobs stay listed, so that their ends can be asked for.
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MinJobAge=3600
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Return what is lacking to start one, or None."""
    if os.geteuid() != 0:
        return "it wants root"
    absent = [program for program in PROGRAMS if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if absent:
        return f"no {absent[0]}: install the packages slurm-wlm and munge"
    return f"{SYSTEM}/slurm.conf is there: this machine has a Slurm" if (SYSTEM / "slurm.conf").exists() else None


@contextmanager
def running(home):
    """Run it while the block lasts; its files lie in `home`."""
    home = Path(home)
    for name in ("state", "spool"):
        (home / name).mkdir(parents=True)
    with Path("/proc/meminfo").open() as file:
        memory = int(file.readline().split()[1]) // 1024
    host = socket.gethostname().partition(".")[0]
    written = CONF.format(host=host, home=home, cpus=os.cpu_count(), memory=memory * 9 // 10)
    SYSTEM.mkdir(exist_ok=True)
    files = {
        "slurm.conf": written,
        # A file that any machine has stands for the GPU: what is tested is that jobs ask for one and get it in turn.
        "gres.conf": f"NodeName={host} Name=gpu File=/dev/zero\n",
        "cgroup.conf": "CgroupAutomount=no\n",
    }
    for name, text in files.items():
        # Where the daemons look by themselves: jobs are started without the variable that names another place.
        (SYSTEM / name).write_text(text, encoding="utf-8")
    try:
        _munge()
        for program in ("/usr/sbin/slurmctld", "/usr/sbin/slurmd"):
            subprocess.run([program, *(["-c"] if program.endswith("ctld") else [])], check=True)
        _wait(lambda: "idle" in _said("sinfo", "--noheader", "--format=%T"), "the node is not idle")
        yield
    finally:
        for name in ("slurmd", "slurmctld"):
            _end(home / f"{name}.pid")
        for name in files:
            (SYSTEM / name).unlink()


def _munge():
    """Start the service that signs messages, unless it runs."""
    if _said("bash", "-c", "munge -n | unmunge"):
        return
    key, run = Path("/etc/munge/munge.key"), Path("/run/munge")
    if not key.is_file():
        key.write_bytes(os.urandom(1024))
    run.mkdir(exist_ok=True)
    for path, mode in ((key, 0o400), (run, 0o755)):
        shutil.chown(path, "munge", "munge")
        path.chmod(mode)
    subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True)
    _wait(lambda: _said("bash", "-c", "munge -n | unmunge"), "munge does not answer")


def _said(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def _wait(true, otherwise):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


def _end(pid_file):
    if pid_file.is_file():
        process = int(pid_file.read_text())
        os.kill(process, 15)
        _wait(lambda: not Path(f"/proc/{process}").exists(), f"process {process} does not end")
