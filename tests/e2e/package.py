"""The packages: the .deb builds, holds what it must, pleases lintian, and its maintainer scripts parse; the tar runs from any
folder; manual pages and completions are those of the programs."""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

FILES = """/usr/bin/hebbd /usr/bin/hebb /usr/bin/hebb-worker /usr/bin/hebb-shim /usr/share/hebb/web/index.html
/usr/share/hebb/web/uPlot.iife.min.js /lib/systemd/system/hebbd.service /lib/systemd/system/hebb-backup.timer
/usr/lib/sysusers.d/hebb.conf /usr/lib/tmpfiles.d/hebb.conf /usr/lib/hebb/backup /etc/hebb/hebbd.json
/usr/share/man/man8/hebbd.8.gz /usr/share/man/man8/hebb-worker.8.gz /usr/share/man/man8/hebb-shim.8.gz
/usr/share/man/man1/hebb.1.gz /usr/share/man/man5/hebb-job.5.gz /usr/share/man/man5/hebbd.conf.5.gz
/usr/share/bash-completion/completions/hebb /usr/share/zsh/vendor-completions/_hebb /usr/share/doc/hebb/copyright""".split()
# What a package outside Debian's archive may leave open.
TAGS_LEFT = "bogus-mail-host,initial-upload-closes-no-bugs,bogus-mail-host-in-debian-changelog,no-copyright-file,copyright-without-copyright-notice"


def output(*command, **more):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **more).stdout


def check_deb(deb, folder):
    listed = {line.split()[5].removeprefix(".") for line in output("dpkg-deb", "-c", deb).splitlines()}
    assert not (missing := set(FILES) - listed), f"not in the package: {missing}"
    assert not [name for name in listed if name.startswith(("/home", "/root", "/work", "/tmp"))]
    fields = output("dpkg-deb", "-f", deb)
    assert re.search(r"^Depends:.*libmicrohttpd12.*$", fields, re.M) and "openmpi-bin" in fields, fields
    output("dpkg-deb", "-R", deb, folder / "deb")
    assert (folder / "deb/DEBIAN/conffiles").read_text().split() == ["/etc/hebb/hebbd.json"]
    for script in ("postinst", "prerm", "postrm"):
        output("sh", "-n", folder / "deb/DEBIAN" / script)
    checked = subprocess.run(["lintian", "--fail-on", "error", "--suppress-tags", TAGS_LEFT, str(deb)], capture_output=True,
                             text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for page in (folder / "deb/usr/share/man").rglob("*.gz"):
        text = output("mandoc", "-T", "utf8", page)
        assert len(text) > 500, page
    job = output("mandoc", "-T", "ascii", folder / "deb/usr/share/man/man5/hebb-job.5.gz")
    assert "refresh_interval" in re.sub(".\b", "", job)


def check_tar(tar, folder):
    output("tar", "-C", folder, "-xzf", tar)
    (top,) = [path for path in folder.iterdir() if path.is_dir() and path.name.startswith("hebb-")]
    moved = top.rename(folder / "any where")
    assert "hebb" in output(moved / "bin/hebb", "help")
    (folder / "state").mkdir()
    said = output(moved / "bin/hebbd", "--state", folder / "state", "--print-config")
    assert str(moved / "bin/hebb-worker") in said and str(moved / "share/hebb/web") in said, said
    script = f'. "{moved}/share/bash-completion/completions/hebb"; COMP_WORDS=(hebb su); COMP_CWORD=1; _hebb; echo "${{COMPREPLY[@]}}"'
    environment = {"PATH": f"{moved}/bin:/usr/bin:/bin"}
    assert output("bash", "-c", script, env=environment).split() == ["submit"]
    script = script.replace("(hebb su)", "(hebb submit --dry)").replace("CWORD=1", "CWORD=2")
    assert output("bash", "-c", script, env=environment).split() == ["--dry-run"]


def main():
    build = pathlib.Path(sys.argv[1]).resolve().parent
    with tempfile.TemporaryDirectory(prefix="hebb-package-") as name:
        folder = pathlib.Path(name)
        shutil.rmtree(build / "package", ignore_errors=True)
        made = subprocess.run(["cpack"], cwd=build, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
        (deb,), (tar,) = [list((build / "package").glob(f"hebb*.{kind}")) for kind in ("deb", "tar.gz")]
        check_deb(deb, folder)
        (folder / "tar").mkdir()
        check_tar(tar, folder / "tar")
        print(f"package: ok, {deb.name} has {deb.stat().st_size >> 10} KiB, {tar.name} {tar.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
