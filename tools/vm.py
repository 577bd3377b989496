"""Runs a command on another machine: `python -m tools.vm -- make test`.

Boots this machine's own root folder, read-only beneath a disk that is thrown away, in a virtual machine with Debian's
kernel: there are cgroup v2, every capability and no network, where the machines at hand have cgroup v1, no
CAP_SYS_RESOURCE and a network. What the command needs must be installed and cached here before. The processor is
emulated: KVM within a virtual machine was slower still. Needs root and Debian's packages; must not change anything on
this machine but its own cache.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tools.cluster import packages
from tools.cluster.paths import ROOT, cache
from tools.cluster.progress import ClusterError, run, step

PACKAGES = {"qemu-system-x86": "the virtual machine", "busybox-static": "its first program"}
# What has to be there before the root folder is; the kernel loads everything else by itself.
FIRST_MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "crc32c_generic", "ext4", "overlay")
NODE_DIR = "/disk/node"
GIB = 1024**3
BY_HAND = "the machine must have Debian's package sources"
# qemu's debug exit ends the process with twice the number that was written, and one: 0 cannot be confused with it.
EXIT_PORT = 0xF4

_INIT = r"""#!/bin/busybox sh
set -e
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in $MODULES; do busybox modprobe "$module"; done
busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose root /low
busybox mount -t ext4 /dev/vda /disk
busybox mkdir -p /disk/up /disk/work /disk/node
busybox mount -t overlay -o lowerdir=/low,upperdir=/disk/up,workdir=/disk/work overlay /new
busybox mkdir -p /new/disk /new/usr/lib/modules /new/dev /new/proc /new/sys /new/run
busybox mount --move /disk /new/disk
busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose modules /new/usr/lib/modules
for folder in proc sys dev; do busybox mount --move /$folder /new/$folder; done
busybox mount -t tmpfs run /new/run
busybox cp /job /new/run/job
busybox ln -sf /usr/bin/busybox /new/usr/sbin/modprobe
busybox cp /second /new/run/second
exec busybox switch_root /new /bin/sh /run/second
"""

_SECOND = r"""
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo /usr/sbin/modprobe > /proc/sys/kernel/modprobe
ip link set lo up
hostname other-machine
/bin/sh /run/job < /dev/null
code=$?
sync
printf "\\$(printf %o $code)" | dd of=/dev/port bs=1 seek=$PORT 2> /dev/null
"""


def kernel() -> tuple[Path, Path]:
    """Debian's kernel and the folder of its modules, with an index of them; kept in the cache, installed nowhere."""
    asked = ["apt-cache", "depends", "linux-image-amd64"]
    listed = run(asked, what="asking for Debian's kernel", remedy=BY_HAND, seconds=60)
    package = next(line.split()[-1] for line in listed.splitlines() if "Depends: linux-image-" in line)
    home = cache() / "vm" / package
    release = package.removeprefix("linux-image-")
    # Debian puts the modules below /lib; where that is a link into /usr, so will the package of a later release.
    modules = home / "lib/modules"
    if not (modules / release / "modules.dep").exists():
        with step(f"Debian's kernel {release}"), tempfile.TemporaryDirectory(dir=_made(cache() / "vm")) as work:
            run(["apt-get", "download", "-q", package], what="its package", remedy=BY_HAND, seconds=600, cwd=Path(work))
            (archive,) = Path(work).glob("*.deb")
            run(["dpkg", "-x", archive, home], what="unpacking it", remedy=BY_HAND, seconds=120)
            run(["busybox", "depmod", "-b", home, release], what="its index", remedy=BY_HAND, seconds=120)
    return home / f"boot/vmlinuz-{release}", modules / release


def needed(index: str, names: tuple[str, ...]) -> set[str]:
    """The files of modules and of all that they need, from the text of modules.dep."""
    lines = dict(line.split(":", 1) for line in index.splitlines())
    files = {Path(file).name.partition(".ko")[0]: file for file in lines}
    found: set[str] = set()
    # What is not in the index is built into the kernel.
    waiting = [files[name] for name in names if name in files]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += lines[file].split()
    return found


def initramfs(target: Path, modules: Path, job: str) -> None:
    """The first root folder: busybox, what finds the real one, and the command."""
    work = target.with_suffix(".d")
    for folder in ("bin", "proc", "sys", "dev", "low", "disk", "new"):
        (work / folder).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", work / "bin/busybox")
    inside = work / "lib/modules" / modules.name
    for file in needed((modules / "modules.dep").read_text(), FIRST_MODULES):
        _made((inside / file).parent)
        shutil.copy(modules / file, inside / file)
    for name in ("modules.dep", "modules.alias", "modules.symbols"):
        shutil.copy(modules / name, inside / name)
    (work / "init").write_text(_INIT.replace("$MODULES", " ".join(FIRST_MODULES)))
    (work / "init").chmod(0o755)
    (work / "second").write_text(_SECOND.replace("$PORT", str(EXIT_PORT)))
    (work / "job").write_text(job)
    names = "\n".join(str(path.relative_to(work)) for path in sorted(work.rglob("*")))
    with target.open("wb") as archive:
        subprocess.run(
            ["busybox", "cpio", "-o", "-H", "newc"],
            cwd=work, input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL, check=True, timeout=60,
        )  # fmt: skip


def job(command: list[str]) -> str:
    """The script that the machine runs: the command here, with this process's environment where it tells of tools."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "XDG_CACHE_HOME") if name in os.environ}
    given = {**kept, "LINKIS_ECM_NODE_DIR": NODE_DIR, "PYTHONUNBUFFERED": "1"}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in given.items())
    return f"{exports}cd {shlex.quote(str(ROOT))}\nexec {shlex.join(command)}\n"


def machine(image: Path, first: Path, disk: Path, modules: Path, *, memory: int, cores: int) -> list[str]:
    """qemu's command line. No network device: nothing can leave."""
    shares = []
    for name, folder in (("root", "/"), ("modules", str(modules.parent))):
        options = "readonly=on,security_model=none,multidevs=remap"
        shares += ["-virtfs", f"local,path={folder},mount_tag={name},{options}"]
    return [
        *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cores), "-m", f"{memory}G"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-nic", "none"),
        *("-kernel", str(image), "-initrd", str(first)),
        *("-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all"),
        *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap"),
        *shares,
        *("-device", "virtio-rng-pci", "-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x04"),
    ]


def boot(command: list[str], *, memory: int, cores: int, seconds: float) -> int:
    """Runs the command on the other machine, with its output as it comes; its exit code."""
    packages.install(PACKAGES)
    image, modules = kernel()
    with tempfile.TemporaryDirectory(dir=_made(cache() / "vm")) as work:
        disk, first = Path(work) / "disk", Path(work) / "first"
        with disk.open("wb") as file:
            file.truncate(24 * GIB)  # sparse: what is not written takes no room
        run(["mke2fs", "-q", "-t", "ext4", disk], what="the disk", remedy=BY_HAND, seconds=120)
        initramfs(first, modules, job(command))
        line = machine(image, first, disk, modules, memory=memory, cores=cores)
        try:
            code = subprocess.run(line, stdin=subprocess.DEVNULL, check=False, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            raise ClusterError(
                f"the machine did not end within {seconds:.0f} s", remedy="allow more: --seconds"
            ) from None
    if code % 2 == 0:
        raise ClusterError("the machine ended before its command did", remedy="its last lines say why")
    return code >> 1


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main(
    command: list[str],
    memory: Annotated[int, typer.Option(help="GiB of memory")] = 8,
    cores: Annotated[int, typer.Option(help="cores")] = 2,
    seconds: Annotated[float, typer.Option(help="the longest that it may take")] = 3600,
) -> None:
    try:
        code = boot(command, memory=memory, cores=cores, seconds=seconds)
    except ClusterError as error:
        error.show()
        raise typer.Exit(1) from error
    sys.exit(code)


if __name__ == "__main__":
    typer.run(main)
