//! Servers that a test starts for itself. They end with the test, however it ends.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::free_port::free_port;

/// A server in a folder of its own.
#[derive(Debug)]
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// A server with these settings, such as `--appendonly yes`.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::start_on(free_port(), settings)
    }

    pub(crate) fn start_on(port: u16, settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, port, settings, process: None };
        server.resume();
        server
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }

    /// Starts it again, with what is in its folder.
    pub(crate) fn resume(&mut self) {
        let folder = self.folder.path().display().to_string();
        let settings = self.settings.clone();
        let mut args = vec!["--save", "", "--dir", &folder, "--enable-debug-command", "yes"];
        args.extend(settings.iter().map(String::as_str));
        self.spawn(&args);
    }

    /// A sentinel with these lines of settings.
    pub(crate) fn sentinel(settings: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, settings).unwrap();
        let settings = vec![file.display().to_string(), "--sentinel".to_owned()];
        let mut server = Self { folder, port: free_port(), settings, process: None };
        server.spawn(&[&server.settings[0].clone(), "--sentinel"]);
        server
    }

    /// What it answers to a command.
    pub(crate) fn says(&self, command: &[&str]) -> String {
        let mut client = Command::new(program("redis-cli"));
        client.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(command);
        String::from_utf8_lossy(&client.stdin(Stdio::null()).output().unwrap().stdout).into_owned()
    }

    /// Writes this key, and waits until a replica has that and everything before it.
    pub(crate) fn replicate(&self, key: &str) {
        let mut client = Command::new(program("redis-cli"));
        client.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // One connection: `WAIT` is about its own writes.
        let commands = format!("SET {key} x\nWAIT 1 60000\n");
        client.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        let answers = client.wait_with_output().unwrap().stdout;
        assert_eq!(String::from_utf8_lossy(&answers), "OK\n1\n");
    }

    fn spawn(&mut self, args: &[&str]) {
        let log = std::fs::File::create(self.folder.path().join("output")).unwrap();
        // The shell kills the server when this process closes its input, or ends.
        let process = Command::new("sh")
            .args(["-c", "\"$0\" \"$@\" </dev/null & read -r _; kill -9 $!; wait"])
            .arg(program("redis-server"))
            .args(args)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .stdin(Stdio::piped())
            .stdout(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "redis-server does not start");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of Redis. `CLOAKROOM_TEST_REDIS_SERVER` names another server, such as that of Valkey.
pub(crate) fn program(name: &str) -> PathBuf {
    if let Some(other) = std::env::var_os("CLOAKROOM_TEST_REDIS_SERVER")
        && name == "redis-server"
    {
        return other.into();
    }
    let found =
        ["/usr/bin", "/usr/local/bin", "/usr/sbin"].map(|folder| PathBuf::from(folder).join(name));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into())
}
