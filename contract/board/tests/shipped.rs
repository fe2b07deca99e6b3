//! Every profile that is shipped says what a board is; a board that is less is told what it lacks.

mod fuzzed;

use petrel_board::{Found, Profile, Target, gather};
use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware-profiles")
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|why| why.to_string())
}

fn profile(name: &str) -> Profile {
    gather(&folder().join(format!("{name}.toml")), read).unwrap_or_else(|why| panic!("{why}")).0
}

#[test]
fn every_file_that_is_shipped_is_whole_and_named_as_its_board() {
    let mut seen = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "base" {
            continue;
        }
        let (profile, layers) = gather(&path, read).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(profile.board, name, "a file has its board's name");
        assert!(layers.len() >= 2, "{name} inherits from base.toml");
        seen.push(name);
    }
    seen.sort();
    let boards =
        ["beaglebone-black", "generic-aarch64", "imx8mp", "jetson-orin-nano", "rpi-zero-2w", "rpi3", "rpi4", "rpi5"];
    assert_eq!(seen, boards);
}

#[test]
fn what_is_inherited_counts_where_nothing_else_is_said() {
    let (zero, three) = (profile("rpi-zero-2w"), profile("rpi3"));
    assert_eq!((zero.cpu.clone(), zero.heat.clone()), (three.cpu.clone(), three.heat.clone()));
    assert_eq!((zero.memory.ram_mb, three.memory.ram_mb), (400, 800));
    assert_eq!((zero.build.features.len(), three.build.features.len()), (0, 2));
    assert_eq!(zero.agent["window"].as_integer(), Some(8));
    assert_eq!(profile("beaglebone-black").target, Target::Armv7);
    assert!(profile("rpi4").build.packed && !profile("jetson-orin-nano").build.packed);
}

/// The files that whoever reads is given.
fn of<'a>(files: &'a [(&str, &str)]) -> impl FnMut(&Path) -> Result<String, String> + 'a {
    |path| {
        let file = files.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "it is not there".to_owned())
    }
}

#[test]
fn what_is_wrong_is_told_with_its_file() {
    let whole = fuzzed::HONEST;
    for (changed, told) in [
        ("", "missing field"),
        ("board = \"a\"\n", "name"),
        ("inherit = \"a.toml\"\n", "inherit from each other"),
        ("inherit = 7\n", "names a file"),
        ("inherit = \"b.toml\"\n", "b.toml: it is not there"),
        ("x = \n", "TOML"),
        (&whole.replace("cores = 4", "cores = 0"), "cpu.cores"),
        (&whole.replace("cores = 4", "cores = 4\ncolour = 1"), "colour"),
        (&whole.replace("\"text\"", "\"video\""), "no `video`"),
        (&whole.replace("80.0", "8000.0"), "heat.slows_at"),
        (&whole.replace("aarch64-", "pdp11-"), "pdp11"),
        (&whole.replace("\"a\"", &format!("\"{}\"", "a".repeat(64))), "`board`"),
    ] {
        let error = gather(Path::new("a.toml"), of(&[("a.toml", changed)])).unwrap_err().to_string();
        assert!(error.contains(".toml") && error.contains(told), "{changed}: {error}");
    }
    assert!(gather(Path::new("a.toml"), of(&[("a.toml", whole)])).is_ok());
    let long = format!("{whole}\n#{}", "-".repeat(petrel_board::MAX_PROFILE_BYTES));
    assert!(gather(Path::new("a.toml"), of(&[("a.toml", &long)])).unwrap_err().why.contains("at most"));
}

#[test]
fn a_board_that_is_less_than_its_profile_is_told_what_it_lacks() {
    let rpi4 = profile("rpi4");
    let board = Found {
        arch: "aarch64".into(),
        cores: Some(4),
        ram_mb: Some(1848),
        features: Some(vec!["neon".into(), "crc".into()]),
        disk_mb: Some(14_000),
    };
    assert!(rpi4.lacks(&board).is_empty());
    let unknown = Found { arch: "aarch64".into(), ..Found::default() };
    assert!(rpi4.lacks(&unknown).is_empty(), "what the system does not tell is no lack");
    for (found, lack) in [
        (Found { arch: "arm".into(), ..board.clone() }, "this program is for arm"),
        (Found { cores: Some(2), ..board.clone() }, "it has 2 cores, and the profile says 4"),
        (Found { ram_mb: Some(425), ..board.clone() }, "it has 425 MiB of memory"),
        (Found { disk_mb: Some(100), ..board.clone() }, "it has 100 MiB of disk"),
        (Found { features: Some(vec!["neon".into()]), ..board.clone() }, "no crc"),
    ] {
        let lacks = rpi4.lacks(&found);
        assert!(lacks.len() == 1 && lacks[0].contains(lack), "{found:?}: {lacks:?}");
    }
}
