//! Installing, upgrading, removing and purging a .deb in a Debian of its own, a folder that debootstrap makes.
//!
//! Decides what must be there and gone after each. Scripts run by chroot, so this is for root; programs of another
//! machine are not run there.

use crate::build::{output, run as finish};
use anyhow::ensure;
use std::fs;
use std::path::Path;
use std::process::Command;

const SUITE: &str = "bookworm";
/// What a device has that was enrolled and runs a model.
const KEPT: [&str; 3] = ["etc/petrel/agent.toml", "var/lib/petrel/ledger.a", "var/lib/petrel/bundles/model.onnx"];

/// Tries a package; fails where something is not as it should be.
pub(super) fn of(deb: &Path, place: &Path) -> anyhow::Result<()> {
    lint(deb)?;
    let root = place.join("debian");
    if !root.join("ready").exists() {
        finish(Command::new("debootstrap").args(["--variant=minbase", SUITE]).arg(&root))?;
        // For the libraries of a package of another machine.
        inside(&root, "dpkg --add-architecture arm64 && dpkg --add-architecture armhf && apt-get -qq update")?;
        fs::write(root.join("ready"), "")?;
    }
    fs::copy(deb, root.join("agent.deb"))?;
    let exists = |name: &str| root.join(name).exists();
    let enabled = "etc/systemd/system/multi-user.target.wants/petrel-agent.service";

    let said =
        inside(&root, "DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends ./agent.deb")?;
    ensure!(
        said.contains("not enrolled yet"),
        "an agent without a configuration must say that it does not start: {said}"
    );
    let whole = exists("usr/bin/petrel-agent")
        && exists("lib/systemd/system/petrel-agent.service")
        && exists("usr/share/petrel/profiles/rpi4.toml");
    ensure!(whole, "files are missing");
    inside(&root, "id petrel >/dev/null && test -d /var/spool/petrel/in")?;
    ensure!(fs::symlink_metadata(root.join(enabled)).is_ok(), "the unit is not enabled");
    println!("installed: the user, the folders and the unit are there; an agent that nobody enrolled is not started");

    for name in KEPT {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        fs::write(path, name)?;
    }
    let kept = || KEPT.iter().all(|name| fs::read(root.join(name)).is_ok_and(|text| text == name.as_bytes()));
    let said = inside(&root, "dpkg -i /agent.deb")?;
    ensure!(kept() && !said.contains("not enrolled"), "an upgrade took something: {said}");
    inside(&root, "systemctl disable petrel-agent.service && dpkg -i /agent.deb")?;
    ensure!(fs::symlink_metadata(root.join(enabled)).is_err(), "a unit that was disabled is enabled again");
    println!("upgraded: the configuration, the ledger and the model are as they were; what was disabled stays so");

    inside(&root, "dpkg --remove petrel-agent")?;
    ensure!(kept() && !exists("usr/bin/petrel-agent"), "removing takes the program and leaves the device's state");
    println!("removed: the program is gone, what the device is and holds stays");
    inside(&root, "dpkg --purge petrel-agent")?;
    let gone = !["etc/petrel", "var/lib/petrel", "var/spool/petrel"].into_iter().any(exists);
    ensure!(gone, "a purge leaves something");
    let left =
        inside(&root, "dpkg-query -W petrel-agent 2>/dev/null || true; find /etc /var/lib/systemd -name '*petrel*'")?;
    ensure!(left.trim().is_empty(), "a purge leaves {left}");
    println!("purged: nothing is left but the user, as Debian leaves users");
    Ok(())
}

/// Debian's own opinion, where it is installed.
fn lint(deb: &Path) -> anyhow::Result<()> {
    let done = Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(deb).output();
    let Ok(done) = done else {
        println!("lintian: not run, it is not installed");
        return Ok(());
    };
    print!("{}", String::from_utf8_lossy(&done.stdout));
    ensure!(done.status.success(), "lintian finds errors in {}", deb.display());
    println!("lintian: no errors");
    Ok(())
}

/// Runs a line in the folder as if it were the whole system, with a /proc that nobody else sees; gives what it said.
fn inside(root: &Path, line: &str) -> anyhow::Result<String> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", "mount -t proc proc \"$0/proc\"; exec chroot \"$0\" sh -ec \"$1\""]);
    output(command.arg(root).arg(line).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C"))
}
