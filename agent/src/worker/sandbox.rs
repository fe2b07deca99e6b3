//! How a model's process is shut in before it reads a byte of its bundle.
//!
//! Decides what such a process may do: read one folder, take some memory, compute, and talk over the sockets that it
//! has. No network, no other file, no other process, no more threads. Where the system cannot do a part of it, the
//! process runs all the same, and says which part is missing.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use protocol::Sandbox;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::set_no_new_privs;
use std::path::Path;

/// Files that a process may have open at once.
const MAX_FILES: u64 = 64;
/// The newest set of rights that was read when this was written; older systems enforce what they know.
const RIGHTS: ABI = ABI::V6;

/// The first part, before there are threads: limits, and the one folder that may be read. Gives whether memory and
/// files are shut in.
pub(super) fn enter(dir: &Path, memory: u64) -> (bool, bool) {
    // When memory is short, this process goes before the agent and before anybody else.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // The agent may be killed while this process is busy with a model.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let memory = limit_memory(memory);
    // What is in a model or a request never lies in a core dump, and nobody else of this user looks in.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    for (resource, most) in [(Resource::Core, 0), (Resource::Fsize, 0), (Resource::Nofile, MAX_FILES)] {
        let _ = setrlimit(resource, exactly(most));
    }
    let unprivileged = set_no_new_privs(true).is_ok();
    (memory, unprivileged && restrict_files(dir))
}

/// The second part, when all threads are there: only the calls that a model needs. Gives whether they are shut in.
pub(super) fn lock() -> bool {
    let _ = setrlimit(Resource::Nproc, exactly(0));
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
    return super::calls::lock();
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
    false
}

/// The sandbox as the two parts made it.
pub(super) fn made((memory, files): (bool, bool), calls: bool) -> Sandbox {
    Sandbox { files, calls, memory }
}

fn exactly(most: u64) -> Rlimit {
    Rlimit { current: Some(most), maximum: Some(most) }
}

/// What the process has now, and so many bytes besides.
fn limit_memory(more: u64) -> bool {
    let taken = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmData:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let Some(taken) = taken else { return false };
    setrlimit(Resource::Data, exactly(taken.saturating_mul(1_024).saturating_add(more))).is_ok()
}

fn restrict_files(dir: &Path) -> bool {
    let restrict = || {
        let rules = path_beneath_rules([dir], AccessFs::ReadFile | AccessFs::ReadDir);
        let ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(RIGHTS))?
            .handle_access(AccessNet::from_all(RIGHTS))?
            .scope(Scope::from_all(RIGHTS))?
            .create()?;
        ruleset.add_rules(rules)?.restrict_self()
    };
    restrict().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::process::Command;
    use std::{fs, net, thread};

    const SHUT_IN: &str = "PETREL_TESTS_SANDBOX";
    const MEMORY: u64 = 32 << 20;

    /// What somebody in there tries, and whether it was possible.
    fn attempts(dir: &Path, agent: rustix::process::Pid) -> Vec<(&'static str, bool)> {
        let address: net::SocketAddr = "127.0.0.1:9".parse().unwrap();
        // Refused by nobody who listens is not refused by the system.
        let refused = |why: std::io::Error| why.kind() == ErrorKind::ConnectionRefused;
        vec![
            ("reads its folder", fs::read(dir.join("own")).is_ok()),
            ("lists its folder", fs::read_dir(dir).is_ok_and(|all| all.count() == 1)),
            ("takes a little memory", Vec::<u8>::new().try_reserve_exact(8 << 20).is_ok()),
            ("reads another file", fs::read("/etc/hostname").is_ok()),
            ("reads what the kernel tells of others", fs::read("/proc/1/cmdline").is_ok()),
            ("leaves by a link", fs::read(dir.join("../other")).is_ok()),
            ("writes", fs::write(dir.join("new"), "x").is_ok()),
            ("empties", fs::OpenOptions::new().write(true).truncate(true).open(dir.join("own")).is_ok()),
            ("removes", fs::remove_file(dir.join("own")).is_ok()),
            ("connects", net::TcpStream::connect(address).map_or_else(refused, |_| true)),
            ("listens", net::TcpListener::bind("127.0.0.1:0").is_ok()),
            ("makes a socket", std::os::unix::net::UnixDatagram::unbound().is_ok()),
            ("runs a program", Command::new("/bin/true").status().is_ok()),
            ("makes a thread", thread::Builder::new().spawn(|| ()).is_ok()),
            ("takes much memory", Vec::<u8>::new().try_reserve_exact(64 << 20).is_ok()),
            ("lifts its limits", setrlimit(Resource::Nofile, exactly(MAX_FILES)).is_ok()),
            ("signals the agent", rustix::process::kill_process(agent, Signal::CONT).is_ok()),
            ("ends another process", rustix::process::test_kill_process(rustix::process::Pid::INIT).is_ok()),
        ]
    }

    /// This very test is started again in a process of its own, which shuts itself in and tries everything.
    #[test]
    fn whoever_is_shut_in_can_compute_and_nothing_else() {
        if let Some(dir) = std::env::var_os(SHUT_IN) {
            let dir = Path::new(&dir);
            let agent = rustix::process::getppid().unwrap();
            let entered = enter(dir, MEMORY);
            let sandbox = made(entered, lock());
            println!("{}", serde_json::to_string(&(sandbox, attempts(dir, agent))).unwrap());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("bundle");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("own"), "x").unwrap();
        fs::write(folder.path().join("other"), "x").unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "worker::sandbox::tests::whoever_is_shut_in_can_compute_and_nothing_else";
        command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(SHUT_IN, &dir);
        let said = command.output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = text.lines().find_map(|line| line.find("[{").map(|at| &line[at..]));
        let line = line.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&said.stderr)));
        let (sandbox, attempts): (Sandbox, Vec<(String, bool)>) = serde_json::from_str(line).unwrap();
        assert!(sandbox.memory && sandbox.calls, "{sandbox:?}");
        for (what, possible) in &attempts[..3] {
            assert!(possible, "it cannot do what a model needs: it {what}");
        }
        // A kernel without Landlock lets it read, which the sandbox says.
        let reads = |what: &str| what.starts_with("reads") || what.starts_with("leaves") || what == "removes";
        for (what, possible) in attempts[3..].iter().filter(|(what, _)| sandbox.files || !reads(what)) {
            assert!(!possible, "it {what}");
        }
    }
}
