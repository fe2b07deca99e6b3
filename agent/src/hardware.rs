//! What this board is, beside what its firmware profile says it is.
//!
//! Decides how a board is looked at. What it lacks is decided by `board`.

use crate::config::Config;
use crate::fault::Fault;
use crate::telemetry::board_memory_mb;
use board::Found;
use std::path::Path;
use sysinfo::Components;

/// Refuses a board that is less than its profile says: what was measured for one that is more would not hold.
///
/// # Errors
/// What it lacks.
pub(crate) fn check(config: &Config) -> Result<(), Fault> {
    let Some(profile) = &config.profile else { return Ok(()) };
    let lacks = profile.lacks(&found(&config.state));
    if lacks.is_empty() {
        return Ok(());
    }
    let what = format!("this board is not what its profile says, `{}` ({})", profile.board, profile.name);
    let remedy = "name the profile of this board with the key `profile`; for one without a profile leave it out";
    Err(Fault::new(what).because(lacks.join("; ")).remedy(remedy))
}

/// What can be seen of this board.
fn found(state: &Path) -> Found {
    let volume = rustix::fs::statvfs(state).ok();
    Found {
        arch: std::env::consts::ARCH.into(),
        cores: std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok()),
        ram_mb: Some(board_memory_mb()).filter(|mb| *mb > 0),
        features: features(),
        disk_mb: volume.map(|volume| volume.f_blocks.saturating_mul(volume.f_frsize) >> 20),
    }
}

/// What the processor can, by the names that profiles have for it.
#[cfg(target_arch = "aarch64")]
fn features() -> Option<Vec<String>> {
    use std::arch::is_aarch64_feature_detected as can;
    let known = [
        ("neon", can!("neon")),
        ("crc", can!("crc")),
        ("aes", can!("aes")),
        ("sha2", can!("sha2")),
        ("lse", can!("lse")),
        ("fp16", can!("fp16")),
        ("dotprod", can!("dotprod")),
    ];
    Some(known.into_iter().filter(|(_, can)| *can).map(|(name, _)| name.to_owned()).collect())
}

/// Nobody tells.
#[cfg(not(target_arch = "aarch64"))]
fn features() -> Option<Vec<String>> {
    None
}

/// How warm it is where the profile says that it is measured: the sensor, what it says, and where the board slows itself.
pub(crate) fn heat(config: &Config) -> Option<(&str, Option<f32>, f32)> {
    let heat = config.profile.as_ref()?.heat.as_ref()?;
    // The kernel's zones and its sensors write one name in two ways.
    let plain = |name: &str| name.replace('-', "_");
    let components = Components::new().ok();
    let named = |label: &str| plain(label).contains(&plain(&heat.sensor));
    let sensor = components.iter().flat_map(|all| all.iter()).find(|component| named(component.label()));
    Some((&heat.sensor, sensor.and_then(sysinfo::Component::temperature), heat.slows_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::told;
    use std::fs;

    #[test]
    fn a_board_that_is_less_is_refused_with_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-profiles/base.toml");
        let profile = |target: &str, cores: u32| {
            let text = format!(
                "inherit = {shipped:?}\nboard = \"b\"\nname = \"B\"\ntarget = \"{target}\"\n[cpu]\ncores = {cores}\n[memory]\nram_mb = 1\n"
            );
            fs::write(dir.path().join("b.toml"), text).unwrap();
            fs::write(
                &path,
                "fleet = \"f\"\ndevice = \"d\"\nbroker = \"mqtts://b\"\nca = \"c\"\nroot = \"r\"\nstate = \".\"\nprofile = \"b.toml\"\n",
            )
            .unwrap();
            Config::read(&path).unwrap()
        };
        let own = board::Target::ALL.into_iter().find(|target| target.arch() == std::env::consts::ARCH);
        let own = own.expect("tests run where programs are built for").triple();
        let config = profile(own, 1);
        assert_eq!(config.board, "b");
        check(&config).unwrap();
        let fault = check(&profile(own, 1024)).unwrap_err();
        assert!(told(&fault).contains("cores, and the profile says 1024"), "{}", told(&fault));
        assert!(fault.advice().is_some());
        let other = board::Target::ALL.into_iter().find(|target| target.triple() != own).unwrap();
        assert!(told(&check(&profile(other.triple(), 1)).unwrap_err()).contains("this program is for"));
    }
}
