//! Debian's compilers for ARM, unpacked into a folder: nothing is installed, and nobody needs to be root.
//!
//! Decides which packages, and how they find each other there. apt decides what they need, by the sources of this machine;
//! its lists and its package database stay as they are. Seen to work on Debian 12: its `rustc-web` is a current compiler
//! with a standard library for arm64. The one for armhf is of an older compiler there, so it is made from the sources.

use crate::build::{cargo, run as finish};
use anyhow::{Context, ensure};
use board::Target;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is called by its own name; the others are called by their machine's.
const RUSTC: &str = "rustc";
/// The linker, as gcc looks for it, its package, and its program there.
const LINKER: (&str, &str, &str) = ("ld.lld", "lld-19", "ld.lld-19");
const TOOLS: [&str; 7] = ["gcc", "ar", "ld", "strip", "nm", "size", "objdump"];
/// Of the machine that builds: its own C library is the one that runs there.
const LEFT_OUT: &str = "libc6_";
/// What the next start need not do again.
const READY: &str = "ready";
/// The same of a tool chain with these programs.
const TOOLS_READY: &str = "ready-2";

/// Python for 64-bit ARM with all that it needs, the C library too; gives the root of that system.
pub(crate) fn python(dir: &Path) -> anyhow::Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    if !dir.join(READY).exists() {
        unpack(&dir, ["python3:arm64", "libstdc++6:arm64"], |name| !name.ends_with("_amd64.deb"))?;
        fs::write(dir.join(READY), "")?;
    }
    Ok(dir.join("root"))
}

/// Debian's packages and what they need, unpacked below `dir`: those that `taken` wants.
fn unpack<'a>(
    dir: &Path,
    packages: impl IntoIterator<Item = &'a str>,
    taken: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    finish(apt(dir)?.arg("update"))?;
    let mut install = apt(dir)?;
    install.args(["install", "--yes", "--download-only", "--no-install-recommends"]).args(packages);
    finish(&mut install)?;
    let root = dir.join("root");
    fs::create_dir_all(&root)?;
    for entry in fs::read_dir(dir.join("apt/archives"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".deb") && taken(&name) {
            finish(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// apt with lists, caches and a package database of its own, which is empty: so it brings everything.
fn apt(dir: &Path) -> anyhow::Result<Command> {
    let apt = dir.join("apt");
    for folder in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let status = apt.join("status");
    fs::write(&status, "")?;
    let mut command = Command::new("apt-get");
    command.args(["-qq", "-o", "APT::Architectures::=amd64", "-o", "APT::Architectures::=arm64"]);
    command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"]);
    command.args(["-o", "Debug::NoLocking=1"]);
    for (key, path) in [
        ("Dir::State::status", status),
        ("Dir::State::lists", apt.join("lists")),
        ("Dir::Cache", apt.clone()),
        ("Dir::Cache::archives", apt.join("archives")),
    ] {
        command.arg("-o").arg(format!("{key}={}", path.display()));
    }
    Ok(command)
}

/// An unpacked tool chain.
#[derive(Debug)]
pub(crate) struct Toolchain {
    dir: PathBuf,
    target: Target,
}

impl Toolchain {
    /// Makes it where it is not there yet; that takes minutes and some 2 GB.
    pub(crate) fn ready(dir: &Path, target: Target) -> anyhow::Result<Self> {
        ensure!(
            target != Target::X86 && cfg!(target_arch = "x86_64"),
            "there is no tool chain for {target} here: install it with `rustup target add {target}` and `apt-get install gcc-{}`",
            target.multiarch()
        );
        let chain = Self { dir: std::path::absolute(dir)?, target };
        if chain.dir.join(TOOLS_READY).exists() {
            return Ok(chain);
        }
        // One of an earlier version, or half of one.
        if chain.dir.exists() {
            fs::remove_dir_all(&chain.dir)?;
        }
        println!("making Debian's tool chain for {target} in {}", chain.dir.display());
        let remedy = "`rustup target add` and `apt-get install` of a C compiler would do as well";
        let of_target = match target {
            Target::Armv7 => ["rust-web-src", "gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"],
            _ => ["libstd-rust-web-dev:arm64", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        };
        let packages = ["rustc-web", "libstd-rust-web-dev", LINKER.1].into_iter().chain(of_target);
        unpack(&chain.dir, packages, |name| {
            name.ends_with("_amd64.deb") && !name.starts_with(LEFT_OUT)
                || name.ends_with("_all.deb")
                || name.starts_with("libstd-rust")
        })
        .with_context(|| format!("Debian's packages cannot be had; {remedy}"))?;
        chain.wrap()?;
        if target == Target::Armv7 {
            chain.standard_library().with_context(|| format!("no standard library for {target}; {remedy}"))?;
        }
        fs::write(chain.dir.join(TOOLS_READY), "")?;
        Ok(chain)
    }

    /// The compiler.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.programs().join(RUSTC)
    }

    /// Where the tools are, by their usual names.
    pub(crate) fn programs(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Where the C library of the other machine is, as if it were that machine's own root.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.dir.join("root/usr").join(self.target.multiarch())
    }

    /// The programs need their own libraries, and the C library's script names folders that are not there.
    fn wrap(&self) -> anyhow::Result<()> {
        let (root, machine) = (self.dir.join("root"), self.target.multiarch());
        let script = self.libraries().join("lib/libc.so");
        let text = fs::read_to_string(&script).with_context(|| format!("cannot read {}", script.display()))?;
        fs::write(&script, text.replace(&format!("/usr/{machine}/lib/"), ""))?;
        fs::create_dir_all(self.programs())?;
        let tools = TOOLS.map(|tool| format!("{machine}-{tool}"));
        let same = tools.iter().map(String::as_str).chain([RUSTC]).map(|name| (name, name));
        for (name, real) in same.chain([(LINKER.0, LINKER.2)]) {
            let real = root.join("usr/bin").join(real);
            ensure!(real.exists(), "Debian's packages bring no {}", real.display());
            let (libraries, older) = (root.join("usr/lib/x86_64-linux-gnu"), root.join("lib/x86_64-linux-gnu"));
            let text = format!(
                "#!/bin/sh\nLD_LIBRARY_PATH={}:{} exec {} \"$@\"\n",
                libraries.display(),
                older.display(),
                real.display()
            );
            let path = self.programs().join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Builds it from the sources that belong to the compiler, and puts it where the compiler looks.
    fn standard_library(&self) -> anyhow::Result<()> {
        let (work, triple) = (self.dir.join("std"), self.target.triple());
        fs::create_dir_all(work.join("src"))?;
        fs::write(work.join("src/lib.rs"), "")?;
        fs::write(
            work.join("Cargo.toml"),
            "[workspace]\n[package]\nname = \"nothing\"\nedition = \"2021\"\n[profile.release]\nopt-level = 3\n",
        )?;
        let mut build = cargo();
        build.current_dir(&work).args(["build", "--release", "--quiet", "-Zbuild-std=std,panic_abort"]);
        build.args(["--target", triple, "--target-dir"]).arg(work.join("target"));
        // The option is none of a stable compiler, and nothing else here needs that.
        build.env("RUSTC", self.rustc()).env_remove("RUSTUP_TOOLCHAIN").env("RUSTC_BOOTSTRAP", "1");
        // For programs that are optimised as a whole; and no path of this machine is in them.
        let flags = format!("-Cembed-bitcode=yes\x1f--remap-path-prefix={}=/debian", self.dir.display());
        build.env("CARGO_ENCODED_RUSTFLAGS", flags);
        let gcc = self.programs().join(format!("{}-gcc", self.target.multiarch()));
        build.env(format!("CARGO_TARGET_{}_LINKER", triple.replace('-', "_").to_ascii_uppercase()), gcc);
        finish(&mut build)?;
        let to = self.dir.join("root/usr/lib/rustlib").join(triple).join("lib");
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(work.join("target").join(triple).join("release/deps"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".rlib") && !name.starts_with("libnothing") {
                fs::copy(&path, to.join(name))?;
            }
        }
        fs::remove_dir_all(&work)?;
        Ok(())
    }
}
