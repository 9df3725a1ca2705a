//! Runs cargo-mutants on a copy of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Write as _};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::list::Mutant;
use crate::command::{Cmd, Failure, cargo, program, root, target};
use crate::packages::start_anew;

const CONFIG: &str = ".cargo/mutants.toml";

/// The sources that have mutants, and the crates whose tests must notice them. The first row that fits
/// counts. The tests of dependent crates would often notice, too, but they take minutes, and say less
/// about what is wrong.
pub(crate) const SOURCES: [(&str, &[&str]); 7] = [
    // The kit's tests run on it.
    ("cloakroom-core/src/store/tenant", &["cloakroom-conformance"]),
    ("cloakroom-core", &["cloakroom-core"]),
    ("cloakroom-jwt", &["cloakroom-jwt"]),
    // The tests of the kit run on this store.
    ("cloakroom-memory", &["cloakroom-memory", "cloakroom-conformance"]),
    ("cloakroom-sqlite", &["cloakroom-sqlite"]),
    ("cloakroom-resource", &["cloakroom-resource"]),
    ("cloakroom", &["cloakroom"]),
];

/// The row of [`SOURCES`] that this file belongs to.
pub(crate) fn source_of(path: &str) -> Option<&'static str> {
    let path = path.strip_prefix("crates/")?;
    let holds = |source: &&str| path.strip_prefix(source).is_some_and(|rest| rest.starts_with('/'));
    SOURCES.iter().map(|(source, _)| *source).find(holds)
}

/// What became of mutants.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// A test fails, or does not end.
    pub(crate) detected: Vec<Mutant>,
    /// Every test passes.
    pub(crate) lived: Vec<Mutant>,
    /// It does not compile.
    pub(crate) unviable: Vec<Mutant>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.detected.extend(other.detected);
        self.lived.extend(other.lived);
        self.unviable.extend(other.unviable);
    }

    pub(crate) fn count(&self) -> usize {
        self.detected.len() + self.lived.len() + self.unviable.len()
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [&self.detected, &self.lived, &self.unviable];
        let paths: BTreeSet<&str> =
            all.into_iter().flatten().map(|mutant| mutant.path.as_str()).collect();
        let width = paths.iter().map(|path| path.len()).max().unwrap_or_default();
        write!(f, "{:<width$} {:>8} {:>8} {:>8}", "file", "detected", "lived", "unviable")?;
        let mut row = |name: &str, belongs: &dyn Fn(&Mutant) -> bool| {
            let [detected, lived, unviable] =
                all.map(|some| some.iter().filter(|mutant| belongs(mutant)).count());
            write!(f, "\n{name:<width$} {detected:>8} {lived:>8} {unviable:>8}")
        };
        for path in paths {
            row(path, &|mutant| mutant.path == path)?;
        }
        row("total", &|_| true)
    }
}

/// The memory of each process: a mutant may allocate until there is none left, long before its time is over.
const MEMORY: u64 = 6 << 30;

/// A copy of the tree, to be changed.
#[derive(Debug)]
pub(crate) struct Runner {
    tree: PathBuf,
    output: PathBuf,
    target: PathBuf,
    /// How long tests may take, once they have passed without any change.
    limits: BTreeMap<String, u64>,
}

impl Runner {
    /// Copies the tree, always to the same place, so that cargo keeps what it has compiled.
    ///
    /// cargo-mutants would create a copy with a new name each time, and a run in the tree itself would
    /// leave it changed if it is killed.
    pub(crate) fn new() -> Result<Self, Failure> {
        let target = target()?;
        let output = target.join("mutants");
        let tree = output.join("tree");
        start_anew(&tree)?;
        let files = program("git")
            .arg("ls-files")
            .arg("--cached")
            .arg("--others")
            .arg("--exclude-standard")
            .arg("-z")
            .output()?;
        for file in files.split_terminator('\0') {
            copy(&root().join(file), &tree.join(file))?;
        }
        Ok(Self { tree, output, target, limits: BTreeMap::new() })
    }

    /// Tries mutants with the tests of these crates.
    pub(crate) fn run(&mut self, tests: &[&str], mutants: &[Mutant]) -> Result<Tally, Failure> {
        let tests: String = tests.iter().map(|name| format!(" --package {name}")).collect();
        let limit = self.limit(&tests)?;
        self.choose(mutants)?;
        let tests = tests.replace("--package", "--test-package");
        let run = format!("mutants --workspace --in-place --baseline skip --colors never{tests}");
        let command = self
            .in_target(cargo(&run))
            .arg("--dir")
            .arg(self.tree.display())
            .arg("--output")
            .arg(self.output.display())
            .arg("--timeout")
            .arg(limit)
            .within_memory(MEMORY);
        match command.code()? {
            // All are detected, some are not, or the tests did not end.
            0 | 2 | 3 => self.tally(mutants),
            code => Err(command.failure(format_args!("failed (exit code {code})"))),
        }
    }

    /// How many seconds the tests may take before a mutant counts as detected.
    ///
    /// # Errors
    ///
    /// They fail without any change. (cargo-mutants would run those of the mutants' crate alone.)
    fn limit(&mut self, tests: &str) -> Result<u64, Failure> {
        if let Some(limit) = self.limits.get(tests) {
            return Ok(*limit);
        }
        let command = |more: &str| {
            self.in_target(cargo(&format!(
                "test{tests} --all-features --lib --tests --quiet{more}"
            )))
            .arg("--manifest-path")
            .arg(self.tree.join("Cargo.toml").display())
            .within_memory(MEMORY)
        };
        command(" --no-run").run()?;
        let start = Instant::now();
        command("").run()?;
        let limit = 60 + 5 * start.elapsed().as_secs();
        self.limits.insert(tests.to_owned(), limit);
        Ok(limit)
    }

    /// Builds into the target directory of the other tasks: the dependencies are the same.
    fn in_target(&self, command: Cmd) -> Cmd {
        command
            .env("CARGO_TARGET_DIR", self.target.display())
            .env("CARGO_PROFILE_DEV_DEBUG", "none")
    }

    /// Names the mutants in the settings: they would be too many for a command line.
    fn choose(&self, mutants: &[Mutant]) -> Result<(), Failure> {
        let mut config = fs::read_to_string(root().join(CONFIG))
            .map_err(|error| Failure::new(format!("cannot read {CONFIG}: {error}")))?;
        config.push_str("\nexamine_re = [\n");
        for mutant in mutants {
            let _ = writeln!(config, "    '^{}$',", escape(&mutant.name()));
        }
        // Version 27.1 also removes fields, whatever `examine_re` says: limit that to these files.
        config.push_str("]\nexamine_globs = [\n");
        let paths: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.path.as_str()).collect();
        for path in paths {
            let _ = writeln!(config, "    '{path}',");
        }
        config.push_str("]\n");
        write(&self.tree.join(CONFIG), &config)
    }

    /// Reads the results of the last run.
    fn tally(&self, mutants: &[Mutant]) -> Result<Tally, Failure> {
        let named = |file: &str| -> Result<Vec<Mutant>, Failure> {
            let path = self.output.join("mutants.out").join(file);
            let names = fs::read_to_string(&path).map_err(|error| {
                Failure::new(format!("cannot read {}: {error}", path.display()))
            })?;
            let names: BTreeSet<&str> = names.lines().collect();
            Ok(mutants.iter().filter(|one| names.contains(&*one.name())).cloned().collect())
        };
        let mut detected = named("caught.txt")?;
        detected.extend(named("timeout.txt")?);
        let tally =
            Tally { detected, lived: named("missed.txt")?, unviable: named("unviable.txt")? };
        if tally.count() == mutants.len() {
            return Ok(tally);
        }
        Err(Failure::new(format!("{} of {} mutants have a result", tally.count(), mutants.len())))
    }
}

/// A regular expression that matches only this text, without a quotation mark.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            c if c.is_ascii_alphanumeric() || " _/:".contains(c) => c.to_string(),
            c => format!("\\x{{{:x}}}", u32::from(c)),
        })
        .collect()
}

/// Skips a file that git lists but that no longer exists.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::new(format!("cannot copy {}: {error}", from.display()));
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    match fs::copy(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::super::list;
    use super::*;
    use crate::ci::crates;

    #[test]
    fn the_table_counts_by_file() {
        let named = |name: &str| list::read(name).expect("a name");
        let tally = Tally {
            detected: named("crates/a/src/b.rs:1:2: x\ncrates/a/src/c.rs:1:2: x"),
            lived: named("crates/a/src/c.rs:3:2: y"),
            unviable: Vec::new(),
        };
        let table = tally.to_string();
        let rows: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["crates/a/src/b.rs", "1", "0", "0"]);
        assert_eq!(rows[2], ["crates/a/src/c.rs", "1", "1", "0"]);
        assert_eq!(rows[3], ["total", "2", "1", "0"]);
    }

    #[test]
    fn a_name_is_escaped_for_regex_and_toml() {
        assert_eq!(escape("a/b.rs:1:2: x_y"), "a/b.rs:1:2: x_y".replace('.', r"\x{2e}"));
        assert_eq!(escape("<'a>"), r"\x{3c}\x{27}a\x{3e}");
        assert_eq!(escape("|\\"), r"\x{7c}\x{5c}");
    }

    #[test]
    fn the_first_source_that_holds_a_file_counts() {
        let core = "crates/cloakroom-core/src/";
        assert_eq!(source_of(&format!("{core}scope.rs")), Some("cloakroom-core"));
        let tenant = Some("cloakroom-core/src/store/tenant");
        assert_eq!(source_of(&format!("{core}store/tenant/keys.rs")), tenant);
        assert_eq!(source_of(&format!("{core}store/tenants.rs")), Some("cloakroom-core"));
        assert_eq!(source_of("crates/cloakroom/src/lib.rs"), Some("cloakroom"));
        assert_eq!(source_of("xtask/src/main.rs"), None);
    }

    #[test]
    fn every_crate_is_here_but_those_that_are_left_out() {
        let mut here: Vec<&str> =
            SOURCES.iter().map(|(name, _)| *name).filter(|name| !name.contains('/')).collect();
        // A test itself, and stores whose tests need a server.
        here.extend(["cloakroom-conformance", "cloakroom-mysql", "cloakroom-postgres"]);
        here.push("cloakroom-redis");
        // The operator's tool, whose work the library does.
        here.push("cloakroom-cli");
        here.sort_unstable();
        assert_eq!(here, crates().expect("the crates"));
    }
}
