//! Line coverage: the tests run instrumented, and LLVM's tools report which lines they reached.
//!
//! cargo-llvm-cov would build the workspace a second time, in its own target directory, and cannot
//! leave out `mod tests` inside a file or set a threshold for each crate.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{Cmd, Failure, cargo, program, root, target};
use crate::coverage_report::Report;
use crate::servers::Servers;
use crate::{stand_in, test};

/// `cargo xtask coverage`: runs the tests, then shows the lines that none of them reaches.
pub(crate) fn task() -> Result<(), Failure> {
    let coverage = Coverage::start()?;
    let servers = Servers::start()?;
    test::tests(&mut test::Counts::default(), &servers, Some(&coverage))?;
    servers.end()?;
    let report = coverage.report()?;
    println!("\n{}\n{report}", report.unreached());
    report.check()
}

/// A run of the tests that is being measured.
#[derive(Debug)]
pub(crate) struct Coverage {
    tools: Tools,
    directory: PathBuf,
}

impl Coverage {
    /// Looks for the tools, and removes the previous run.
    pub(crate) fn start() -> Result<Self, Failure> {
        let tools = Tools::find()?;
        let directory = target()?.join("coverage");
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot empty {}: {error}", directory.display())))
            }
            _ => Ok(Self { tools, directory }),
        }
    }

    /// The same tests, instrumented. They do not run noticeably slower.
    pub(crate) fn measured(&self, tests: Cmd) -> Result<Cmd, Failure> {
        // One file for each process (%p) of each binary (%m).
        let profiles = self.profiles().join("%m-%p.profraw");
        Ok(stand_in::instruments(tests)?.env("LLVM_PROFILE_FILE", profiles.display()))
    }

    /// What the tests have reached.
    pub(crate) fn report(&self) -> Result<Report, Failure> {
        let merged = self.directory.join("tests.profdata");
        program(&self.tools.profdata)
            .arg("merge")
            .arg("--sparse")
            // A process that a test has killed may leave half a profile.
            .arg("--failure-mode=all")
            .arg(self.profiles().display())
            .arg("--output")
            .arg(merged.display())
            .run()?;

        let mut export = program(&self.tools.cov)
            .arg("export")
            .arg("--format=lcov")
            .arg(format!("--instr-profile={}", merged.display()));
        for binary in self.binaries()? {
            export = export.arg("--object").arg(binary);
        }
        let lcov = export.arg("--sources").arg(root().join("crates").display()).output()?;
        Report::read(&lcov)
    }

    fn profiles(&self) -> PathBuf {
        self.directory.join("profiles")
    }

    /// The test binaries, which also say where in the source their counters are.
    fn binaries(&self) -> Result<Vec<String>, Failure> {
        let list = cargo(test::TESTS).arg("--no-run").arg("--quiet").arg("--message-format=json");
        let list = self.measured(list)?.output()?;
        Ok(list.lines().filter_map(executable).collect())
    }
}

/// The one member of cargo's messages that matters here: `"executable":"<path>"`.
fn executable(message: &str) -> Option<String> {
    let (_, path) = message.split_once("\"executable\":\"")?;
    let (path, _) = path.split_once('"')?;
    Some(path.replace("\\\\", "\\"))
}

/// The tools of the LLVM version that this compiler uses.
#[derive(Debug)]
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// Looks into the toolchain, where rustup puts them, then for those of a Linux distribution.
    fn find() -> Result<Self, Failure> {
        let version = rustc("-vV")?;
        let field = |name| version.lines().find_map(|line| line.strip_prefix(name));
        let (Some(host), Some(llvm)) = (field("host: "), field("LLVM version: ")) else {
            return Err(Failure::new("rustc names no host or no LLVM version"));
        };
        let major = llvm.split('.').next().unwrap_or(llvm);

        let toolchain = rustc("--print sysroot")?;
        let toolchain = Path::new(toolchain.trim()).join("lib/rustlib").join(host).join("bin");
        let candidates = [
            Self::named(|tool| toolchain.join(format!("llvm-{tool}{EXE_SUFFIX}"))),
            Self::named(|tool| format!("llvm-{tool}-{major}").into()),
        ];
        candidates.into_iter().find(Self::run).ok_or_else(|| {
            Failure::new(format!(
                "the tools of LLVM {major} are missing\n\
                 install with: rustup component add llvm-tools\n\
                 or, on Debian: apt-get install llvm-{major}"
            ))
        })
    }

    fn named(path: impl Fn(&str) -> PathBuf) -> Self {
        Self { profdata: path("profdata"), cov: path("cov") }
    }

    fn run(&self) -> bool {
        [&self.profdata, &self.cov].into_iter().all(|tool| {
            let mut command = Command::new(tool);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        })
    }
}

fn rustc(args: &str) -> Result<String, Failure> {
    args.split_whitespace().fold(program("rustc"), Cmd::arg).output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_of_test_binaries_are_read() {
        let found = executable(
            r#"{"reason":"compiler-artifact","executable":"/t/deps/it-1","fresh":true}"#,
        );
        assert_eq!(found.as_deref(), Some("/t/deps/it-1"));
        let found = executable(r#"{"executable":"C:\\t\\it-1.exe"}"#);
        assert_eq!(found.as_deref(), Some(r"C:\t\it-1.exe"));
        assert_eq!(executable(r#"{"reason":"compiler-artifact","executable":null}"#), None);
    }
}
