//! Debian's compilers for ARM, unpacked into a folder: nothing is installed, and nobody needs to be root.
//!
//! Decides which packages, and how they find each other there. apt decides what they need, by the sources of this machine;
//! its lists and its package database stay as they are. Seen to work on Debian 12: its `rustc-web` is a current compiler
//! with a standard library for arm64.

use crate::build::run as finish;
use anyhow::{Context, ensure};
use board::Target;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is called by its own name; the others are called by their machine's.
const RUSTC: &str = "rustc";
const TOOLS: [&str; 7] = ["gcc", "ar", "ld", "strip", "nm", "size", "objdump"];
/// Of the machine that builds: its own C library is the one that runs there.
const LEFT_OUT: &str = "libc6_";
/// What the next start need not do again.
const READY: &str = "ready";

/// An unpacked tool chain.
#[derive(Debug)]
pub(crate) struct Toolchain {
    dir: PathBuf,
}

impl Toolchain {
    /// Makes it where it is not there yet; that takes minutes and some 2 GB.
    pub(crate) fn ready(dir: &Path, target: Target) -> anyhow::Result<Self> {
        ensure!(
            target == Target::Aarch64 && cfg!(target_arch = "x86_64"),
            "there is no tool chain for {target} here: install it with `rustup target add {target}` and `apt-get install gcc-{}`",
            target.multiarch()
        );
        let chain = Self { dir: std::path::absolute(dir)? };
        if chain.dir.join(READY).exists() {
            return Ok(chain);
        }
        println!("making Debian's tool chain for {target} in {}", chain.dir.display());
        chain.download().context("Debian's packages cannot be had; `rustup target add` and `apt-get install gcc-aarch64-linux-gnu` would do as well")?;
        chain.unpack()?;
        chain.wrap(target)?;
        fs::write(chain.dir.join(READY), "")?;
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

    /// apt with lists, caches and a package database of its own, which is empty: so it brings everything.
    fn apt(&self) -> anyhow::Result<Command> {
        let apt = self.dir.join("apt");
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

    fn download(&self) -> anyhow::Result<()> {
        finish(self.apt()?.arg("update"))?;
        let mut install = self.apt()?;
        install.args(["install", "--yes", "--download-only", "--no-install-recommends"]);
        install.args(["rustc-web", "libstd-rust-web-dev", "libstd-rust-web-dev:arm64"]);
        install.args(["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]);
        finish(&mut install)
    }

    fn unpack(&self) -> anyhow::Result<()> {
        let root = self.dir.join("root");
        fs::create_dir_all(&root)?;
        for entry in fs::read_dir(self.dir.join("apt/archives"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with("_amd64.deb") && !name.starts_with(LEFT_OUT)
                || name.ends_with("_all.deb")
                || name.starts_with("libstd-rust")
            {
                finish(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&root))?;
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// The programs need their own libraries, and the C library's script names folders that are not there.
    fn wrap(&self, target: Target) -> anyhow::Result<()> {
        let (root, machine) = (self.dir.join("root"), target.multiarch());
        let script = root.join("usr").join(machine).join("lib/libc.so");
        let text = "GROUP ( libc.so.6 libc_nonshared.a AS_NEEDED ( ld-linux-aarch64.so.1 ) )\n";
        fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
        fs::create_dir_all(self.programs())?;
        let tools = TOOLS.map(|tool| format!("{machine}-{tool}"));
        for name in tools.iter().map(String::as_str).chain([RUSTC]) {
            let real = root.join("usr/bin").join(name);
            ensure!(real.exists(), "Debian's packages bring no {name}");
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
}
