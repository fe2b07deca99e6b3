//! `cargo xtask cross`: the agent for another machine, without a container.
//!
//! Decides with which compiler, for which board, and where the programs are put. What a board is, `firmware-profiles/` says.

use crate::build::{cargo, output, run as finish, workspace};
use crate::debian::Toolchain;
use anyhow::{Context, bail, ensure};
use board::{Profile, Target};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program, what it is for, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The board, or the target where none is named.
    pub(crate) name: String,
    /// What the compiler builds for.
    pub(crate) target: Target,
    /// What a board needs.
    pub(crate) profile: Option<Profile>,
    /// In minutes, unoptimised, rather than as it is shipped.
    pub(crate) quick: bool,
    /// What else cargo's profile says, where something is tried.
    pub(crate) settings: &'static [(&'static str, &'static str)],
}

/// A program that was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// As it is shipped.
    pub(crate) program: PathBuf,
    /// The same with the names of what is in it.
    pub(crate) named: PathBuf,
    /// The tools of its machine.
    pub(crate) tools: Tools,
}

/// Compiler, linker and what looks into programs.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    rustc: Option<PathBuf>,
    folder: Option<PathBuf>,
    libraries: PathBuf,
    prefix: &'static str,
}

/// What a program with packed relocations asks of the C library, which has it from 2.36 on.
pub(crate) const PACKED: &str = "GLIBC_ABI_DT_RELR";
/// What cargo builds.
const PROGRAM: [&str; 4] = ["--package", "agent", "--bin", "petrel-agent"];

/// `cargo xtask cross [--target T] [--profile BOARD] [--quick] [--twice]`
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let (twice, args): (Vec<String>, Vec<String>) = args.iter().cloned().partition(|arg| arg == "--twice");
    let wanted = Wanted::asked(&args)?;
    if !twice.is_empty() {
        let changed = output(Command::new("git").args(["status", "--porcelain"]).current_dir(workspace()))?;
        ensure!(changed.is_empty(), "--twice builds what is committed, and there is more here:\n{changed}");
    }
    let built = wanted.build()?;
    if !twice.is_empty() {
        wanted.again(&built)?;
    }
    println!("{}", built.program.display());
    Ok(())
}

impl Wanted {
    /// What the arguments ask for.
    pub(crate) fn asked(args: &[String]) -> anyhow::Result<Self> {
        let (mut target, mut board, mut quick) = (None, None, false);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--quick" => quick = true,
                "--target" => {
                    let triple = args.next().context("--target takes a triple, as aarch64-unknown-linux-gnu")?;
                    target = Some(triple.parse::<Target>().map_err(anyhow::Error::msg)?);
                }
                "--profile" => board = Some(args.next().context("--profile takes a board, as rpi4")?),
                other => bail!("there is no `{other}` here; there are --target TRIPLE, --profile BOARD and --quick"),
            }
        }
        match (target, board) {
            (target, Some(board)) => {
                let wanted = Self::of(board, quick)?;
                let meant = target.is_none_or(|target| target == wanted.target);
                ensure!(meant, "{board} is a board for {}; leave --target out", wanted.target);
                Ok(wanted)
            }
            (Some(target), None) => Ok(Self::all(target, quick)),
            (None, None) => bail!("say for what: --target TRIPLE, or --profile BOARD of firmware-profiles/"),
        }
    }

    /// The program of a board.
    pub(crate) fn of(board: &str, quick: bool) -> anyhow::Result<Self> {
        let path = workspace().join("firmware-profiles").join(format!("{board}.toml"));
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|why| why.to_string());
        let (profile, _) = board::gather(&path, read)?;
        Ok(Self { name: profile.board.clone(), target: profile.target, profile: Some(profile), quick, settings: &[] })
    }

    /// The program with everything.
    pub(crate) fn all(target: Target, quick: bool) -> Self {
        Self { name: target.triple().to_owned(), target, profile: None, quick, settings: &[] }
    }

    /// What it is built with.
    pub(crate) fn features(&self) -> Vec<String> {
        let all = ["image", "text"].map(str::to_owned).to_vec();
        self.profile.as_ref().map_or(all, |profile| profile.build.features.clone())
    }

    /// Whether its relocations are packed.
    fn packed(&self) -> bool {
        self.profile.as_ref().is_none_or(|profile| profile.build.packed)
    }

    /// Builds it in the one target folder; gives where it is.
    pub(crate) fn build(&self) -> anyhow::Result<Built> {
        self.build_in(&workspace(), &folder())
    }

    /// Builds it and an example of the engine at once, from the same libraries; gives where both are.
    pub(crate) fn build_with(&self, example: &str) -> anyhow::Result<(Built, PathBuf)> {
        let tools = Tools::of(self.target)?;
        let what = [&PROGRAM[..], &["--package", "petrel-engine", "--example", example]].concat();
        let made = self.compile(&tools, &workspace(), &folder(), &what)?;
        Ok((self.stripped(tools, &made, &folder())?, made.join("examples").join(example)))
    }

    fn build_in(&self, source: &Path, target: &Path) -> anyhow::Result<Built> {
        let tools = Tools::of(self.target)?;
        let made = self.compile(&tools, source, target, &PROGRAM)?;
        self.stripped(tools, &made, target)
    }

    fn stripped(&self, tools: Tools, made: &Path, target: &Path) -> anyhow::Result<Built> {
        let made = made.join("petrel-agent");
        let place = target.join("cross").join(&self.name).join(self.cargo_profile());
        std::fs::create_dir_all(&place)?;
        let (program, named) = (place.join("petrel-agent"), place.join("petrel-agent.named"));
        std::fs::copy(&made, &named).with_context(|| format!("cannot copy {}", made.display()))?;
        finish(tools.command("strip").arg("-o").arg(&program).arg(&named))?;
        if self.packed() && !output(tools.command("objdump").arg("-p").arg(&program))?.contains(PACKED) {
            eprintln!(
                "the linker cannot pack relocations: the program is larger than it could be, and starts with an older glibc"
            );
        }
        Ok(Built { program, named, tools })
    }

    /// Builds it again, the same commit from another folder into another: it must be the same to the last byte.
    fn again(&self, first: &Built) -> anyhow::Result<()> {
        let elsewhere = folder().join("cross/again");
        if elsewhere.exists() {
            std::fs::remove_dir_all(&elsewhere)?;
        }
        let (source, target) = (elsewhere.join("the-same-commit"), elsewhere.join("built"));
        finish(Command::new("git").args(["clone", "--quiet"]).arg(workspace()).arg(&source))?;
        let second = self.build_in(&source, &target)?;
        let same = std::fs::read(&first.program)? == std::fs::read(&second.program)?;
        let (first, second) = (first.program.display(), second.program.display());
        ensure!(same, "two builds of the same commit differ: {first} and {second}");
        std::fs::remove_dir_all(&elsewhere)?;
        println!("built twice, in two folders: the same bytes");
        Ok(())
    }

    fn cargo_profile(&self) -> &'static str {
        if self.quick { "quick" } else { "board" }
    }

    /// Gives the folder of what was compiled.
    fn compile(&self, tools: &Tools, source: &Path, target: &Path, what: &[&str]) -> anyhow::Result<PathBuf> {
        let profile = self.cargo_profile();
        let mut build = cargo();
        build.current_dir(source).args(["build", "--locked", "--profile", profile]).args(what);
        build.args(["--target", self.target.triple(), "--target-dir"]).arg(target);
        let features = self.features();
        // Said only where something is left out, so that the whole program is the one of `cargo build`.
        if features.len() < 2 {
            build.args(["--no-default-features", "--features", &features.join(",")]);
        }
        tools.lend(&mut build, self.target);
        // The names stay in for `cargo xtask size`; what is shipped goes without them.
        build.env(format!("CARGO_PROFILE_{}_STRIP", profile.to_ascii_uppercase()), "false");
        for (name, value) in self.settings {
            build.env(format!("CARGO_PROFILE_{}_{name}", profile.to_ascii_uppercase()), value);
        }
        let mut flags = remapped(source, target)?;
        if self.packed() {
            flags.extend(tools.packing());
        }
        build.env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\x1f")));
        finish(&mut build)?;
        Ok(target.join(self.target.triple()).join(profile))
    }
}

/// Where everything is built.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// No path of the machine that builds is in the program: the same commit gives the same bytes elsewhere.
fn remapped(source: &Path, target: &Path) -> anyhow::Result<Vec<OsString>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME says where cargo keeps its sources")?;
    let remap = |(from, to): (&Path, &str)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    };
    Ok([(source, "/petrel"), (target, "/petrel/target"), (&home, "/cargo")].map(remap).to_vec())
}

impl Tools {
    /// Those that are installed, or Debian's, unpacked beside what is built.
    pub(crate) fn of(target: Target) -> anyhow::Result<Self> {
        let prefix = target.multiarch();
        let gcc = Command::new(format!("{prefix}-gcc")).arg("--version").output().is_ok_and(|o| o.status.success());
        let libraries = output(cargo_rustc().args(["--print", "target-libdir", "--target", target.triple()]))?;
        if gcc && Path::new(libraries.trim()).is_dir() {
            let libraries = Path::new("/usr").join(prefix);
            return Ok(Self { rustc: None, folder: None, libraries, prefix });
        }
        let debian = Toolchain::ready(&folder().join("cross").join(format!("debian-{prefix}")), target)?;
        let libraries = debian.libraries();
        Ok(Self { rustc: Some(debian.rustc()), folder: Some(debian.programs()), libraries, prefix })
    }

    /// Where the libraries of its machine are, as qemu asks for it.
    pub(crate) fn libraries(&self) -> &Path {
        &self.libraries
    }

    /// One of them: `gcc`, `strip`, `nm`, `size`.
    pub(crate) fn command(&self, name: &str) -> Command {
        Command::new(self.path(name))
    }

    fn path(&self, name: &str) -> PathBuf {
        let name = format!("{}-{name}", self.prefix);
        self.folder.as_ref().map_or_else(|| PathBuf::from(&name), |folder| folder.join(&name))
    }

    /// What packs relocations. A linker that cannot goes on without a word that rustc would pass on; Debian's for ARM is
    /// one, so that tool chain has another.
    fn packing(&self) -> Vec<OsString> {
        let mut flags = Vec::new();
        if let Some(folder) = &self.folder {
            let mut place = OsString::from("-Clink-arg=-B");
            place.push(folder);
            flags.extend(["-Clink-arg=-fuse-ld=lld".into(), place]);
        }
        flags.push("-Clink-arg=-Wl,-z,pack-relative-relocs".into());
        flags
    }

    /// Tells cargo, and those who compile C for it, which they are.
    fn lend(&self, build: &mut Command, target: Target) {
        let triple = target.triple().replace('-', "_");
        build.env(format!("CARGO_TARGET_{}_LINKER", triple.to_ascii_uppercase()), self.path("gcc"));
        build.env(format!("CC_{triple}"), self.path("gcc"));
        if let Some(rustc) = &self.rustc {
            build.env(format!("AR_{triple}"), self.path("ar"));
            build.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
        }
    }
}

/// The compiler that cargo uses here.
fn cargo_rustc() -> Command {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.current_dir(workspace());
    rustc
}
