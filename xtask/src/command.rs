//! Child processes: announced before they run, and shown again when they fail.

use std::env;
use std::fmt::{self, Display};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::servers::Url;

/// The root of the workspace; every command runs there.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The target directory: the one above the profile's directory, where xtask itself is.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    let xtask = env::current_exe()
        .map_err(|error| Failure::new(format!("cannot find the target directory: {error}")))?;
    Ok(xtask.ancestors().nth(2).unwrap_or(&xtask).to_owned())
}

/// Why a task failed, and the command that reproduces it.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    reproduce: Option<String>,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), reproduce: None }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.reproduce {
            Some(command) => write!(f, "\nreproduce with: {command}"),
            None => Ok(()),
        }
    }
}

/// A command line, to be run from the root of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Cmd {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(&'static str, String)>,
    secrets: Vec<(&'static str, Url)>,
}

/// `cargo` with arguments that are split at white space.
pub(crate) fn cargo(args: &str) -> Cmd {
    let args = args.split_whitespace().map(ToOwned::to_owned).collect();
    Cmd { args, ..program("cargo") }
}

/// A program without arguments.
pub(crate) fn program(path: impl Into<PathBuf>) -> Cmd {
    Cmd { program: path.into(), args: Vec::new(), env: Vec::new(), secrets: Vec::new() }
}

impl Cmd {
    pub(crate) fn env(mut self, name: &'static str, value: impl Display) -> Self {
        self.env.push((name, value.to_string()));
        self
    }

    /// Sets a variable that is not shown.
    pub(crate) fn secret(mut self, name: &'static str, value: &Url) -> Self {
        self.secrets.push((name, value.clone()));
        self
    }

    /// Adds one argument, which may contain white space.
    pub(crate) fn arg(mut self, arg: impl Display) -> Self {
        self.args.push(arg.to_string());
        self
    }

    /// Gives each of its processes at most so many bytes of memory that it may write to, where the system can. Address
    /// space that it only reserves, as browsers do, does not count.
    pub(crate) fn within_memory(mut self, bytes: u64) -> Self {
        if cfg!(target_os = "linux") {
            let program = std::mem::replace(&mut self.program, "prlimit".into());
            let before = [format!("--data={bytes}"), program.display().to_string()];
            self.args.splice(0..0, before);
        }
        self
    }

    /// Runs the command with its output on the terminal.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        self.announce();
        let status = self.command().status();
        self.succeeded(status)
    }

    /// Runs the command as `run` does, and returns its exit code.
    pub(crate) fn code(&self) -> Result<i32, Failure> {
        self.announce();
        match self.command().status() {
            Ok(status) => {
                status.code().ok_or_else(|| self.failure(format_args!("failed ({status})")))
            }
            Err(error) => Err(self.failure(format_args!("could not be run: {error}"))),
        }
    }

    /// Runs the command, passes its standard output through, and shows each line to `see`.
    pub(crate) fn stream(&self, see: impl FnMut(&str)) -> Result<(), Failure> {
        self.announce();
        let status = self.command().stdout(Stdio::piped()).spawn();
        self.succeeded(status.and_then(|child| pass_through(child, see)))
    }

    /// Runs the command silently and returns its standard output.
    pub(crate) fn output(&self) -> Result<String, Failure> {
        let output = self.command().stderr(Stdio::inherit()).output();
        let (status, stdout) = match output {
            Ok(output) => (Ok(output.status), output.stdout),
            Err(error) => (Err(error), Vec::new()),
        };
        self.succeeded(status)?;
        String::from_utf8(stdout).map_err(|_| self.failure("did not print UTF-8"))
    }

    pub(crate) fn failure(&self, what: impl Display) -> Failure {
        Failure { what: format!("`{self}` {what}"), reproduce: Some(self.to_string()) }
    }

    fn announce(&self) {
        println!("$ {self}");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .envs(self.secrets.iter().map(|(name, value)| (name, value.reveal())))
            .current_dir(root());
        command
    }

    fn succeeded(&self, status: io::Result<ExitStatus>) -> Result<(), Failure> {
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failure(format_args!("failed ({status})"))),
            Err(error) => Err(self.failure(format_args!("could not be run: {error}"))),
        }
    }
}

impl Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.env {
            write!(f, "{name}='{value}' ")?;
        }
        write!(f, "{}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

fn pass_through(mut child: Child, mut see: impl FnMut(&str)) -> io::Result<ExitStatus> {
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        // Bytes, not `lines()`: a test may print what is not UTF-8.
        while reader.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            see(text.trim_end());
            line.clear();
        }
    }
    child.wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let command = cargo("doc --no-deps").env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(command.to_string(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn a_secret_is_handed_on_but_not_shown() {
        let url = Url::parse("redis://:hunter2@host", &["redis"]).expect("a URL");
        let command = program("env").secret("REDIS", &url);
        for shown in [command.to_string(), format!("{command:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        let output = command.output().expect("env runs");
        assert!(output.lines().any(|line| line == "REDIS=redis://:hunter2@host"));
    }

    #[test]
    fn a_failed_command_says_how_to_reproduce_it() {
        let failure = cargo("no-such-subcommand").output().expect_err("must fail").to_string();
        assert!(failure.ends_with("\nreproduce with: cargo no-such-subcommand"), "{failure}");
    }

    #[test]
    fn a_missing_program_is_a_failure() {
        let failure = program("/no/such/program").run().expect_err("must fail").to_string();
        assert!(failure.contains("could not be run"), "{failure}");
    }

    #[test]
    fn a_code_other_than_zero_is_left_to_the_caller() {
        assert_eq!(cargo("--version").code().expect("cargo runs"), 0);
        assert_ne!(cargo("no-such-subcommand").code().expect("cargo runs"), 0);
        program("/no/such/program").code().expect_err("must fail");
    }

    #[test]
    fn every_line_of_the_output_is_seen() {
        let mut lines = Vec::new();
        cargo("--version").stream(|line| lines.push(line.to_owned())).expect("cargo runs");
        assert!(matches!(&lines[..], [line] if line.starts_with("cargo ")), "{lines:?}");
    }
}
