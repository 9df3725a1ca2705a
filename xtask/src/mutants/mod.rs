//! Mutation testing: change the code, and see whether a test fails.

mod change;
mod held;
mod list;
mod runner;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use self::held::Held;
use self::list::Mutant;
use self::runner::{Runner, SOURCES, Tally, source_of};
use crate::command::{Cmd, Failure, cargo, root, target};
use crate::tools;

/// What a check of a change takes at most. Batches are small: one that has begun is finished.
const MAX: usize = 40;
const BUDGET: Duration = Duration::from_secs(4 * 60);
const BATCH: usize = 5;

/// Which mutants are to be tried.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mutants {
    /// Those that `ci` tries.
    OfChange,
    /// Those of these files and directories; without any, those of all files that are held.
    OfFiles(Files),
}

impl Mutants {
    /// Reads `--change` or `[--sample N] [FILE...]`.
    pub(crate) fn parse(args: &[String]) -> Option<Self> {
        let is_path = |arg: &String| !arg.is_empty() && !arg.starts_with('-');
        let (most, paths) = match args {
            [option] if option == "--change" => return Some(Self::OfChange),
            [option, most, paths @ ..] if option == "--sample" => (Some(most.parse().ok()?), paths),
            paths => (None, paths),
        };
        paths.iter().all(is_path).then(|| Self::OfFiles(Files { paths: paths.to_vec(), most }))
    }

    pub(crate) fn run(&self) -> Result<(), Failure> {
        match self {
            Self::OfChange => Change::of_tree()?.check().map(|note| println!("{note}")),
            Self::OfFiles(files) => files.check(),
        }
    }
}

/// Files and directories, from the root of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    paths: Vec<String>,
    /// How many mutants of each directory are tried at most, always the same ones.
    most: Option<usize>,
}

impl Files {
    fn check(&self) -> Result<(), Failure> {
        install()?;
        let held = Held::load()?;
        let all = list::read(&listed().output()?)?;
        let asked = self.choose(&all, &held);
        if asked.is_empty() {
            return Err(Failure::new("no mutant is in these files"));
        }
        let tally = try_all(&asked, None)?;
        println!("\n{tally}");
        let stale = held.stale(&all, |mutant| tally.detected.contains(mutant));
        verdict(&tally.lived.iter().collect::<Vec<_>>(), &stale, &held)
    }

    /// The mutants that are asked for, by their rank if not all of them are tried.
    fn choose(&self, all: &[Mutant], held: &Held) -> Vec<Mutant> {
        let of = |asks_for: &dyn Fn(&str) -> bool| {
            let mut asked: Vec<Mutant> =
                all.iter().filter(|mutant| asks_for(&mutant.path)).cloned().collect();
            if let Some(most) = self.most {
                asked.sort_by_cached_key(Mutant::rank);
                asked.truncate(most);
            }
            asked
        };
        if self.paths.is_empty() {
            return of(&|path| held.holds(path));
        }
        let mut chosen: Vec<Mutant> = Vec::new();
        for asked in &self.paths {
            let more = of(&|path| lies_in(path, asked));
            chosen.extend(
                more.into_iter().filter(|mutant| !chosen.contains(mutant)).collect::<Vec<_>>(),
            );
        }
        chosen
    }
}

/// Whether this is the asked file, or in the asked directory.
fn lies_in(path: &str, asked: &str) -> bool {
    let rest = path.strip_prefix(asked.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The difference between the tree and the branch that it will be merged into.
#[derive(Debug)]
pub(crate) struct Change {
    diff: String,
}

impl Change {
    /// # Errors
    ///
    /// There is nothing to compare the tree with.
    pub(crate) fn of_tree() -> Result<Self, Failure> {
        change::diff(root()).map(|diff| Self { diff })
    }

    /// Tries a sample of the mutants on the lines that the change touches, and says how many of
    /// them that are. One that lives is an error in a file that is held, and a warning elsewhere.
    pub(crate) fn check(&self) -> Result<String, Failure> {
        install()?;
        let held = Held::load()?;
        let all = list::read(&listed().output()?)?;
        let stale = held.stale(&all, |_| false);

        let directory = target()?.join("mutants");
        let diff = directory.join("change.diff");
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&diff, &self.diff))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", diff.display())))?;
        let touched = listed().arg("--in-diff").arg(diff.display()).output()?;
        let touched: BTreeSet<&str> = touched.lines().collect();
        let touched: Vec<Mutant> =
            all.into_iter().filter(|mutant| touched.contains(&*mutant.name())).collect();

        let count = touched.len();
        let tally = try_all(&sample(touched, &held), Some(BUDGET))?;
        let (lived, elsewhere): (Vec<_>, Vec<_>) =
            tally.lived.iter().partition(|mutant| held.holds(&mutant.path));
        for mutant in &elsewhere {
            println!("warning: no test notices `{mutant}`");
        }
        verdict(&lived, &stale, &held)?;
        let tried = tally.count();
        Ok(match elsewhere.len() {
            0 => format!("ok, {tried} of {count} tried"),
            warnings => format!("ok, {tried} of {count} tried, {warnings} lived"),
        })
    }
}

fn install() -> Result<(), Failure> {
    tools::install("mutants", "27.1.0")
}

/// Lists all mutants, one on a line.
fn listed() -> Cmd {
    cargo("mutants --workspace --list --colors never")
}

/// At most as many as fit into a check, and always the same ones. Those in files that are held come
/// first.
fn sample(mut mutants: Vec<Mutant>, held: &Held) -> Vec<Mutant> {
    mutants.sort_by_cached_key(|mutant| (!held.holds(&mutant.path), mutant.rank()));
    mutants.truncate(MAX);
    mutants
}

/// Tries the mutants, crate by crate, until the time is over.
fn try_all(mutants: &[Mutant], budget: Option<Duration>) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    if mutants.is_empty() {
        return Ok(tally);
    }
    let start = Instant::now();
    let mut runner = Runner::new()?;
    for (source, tests) in SOURCES {
        let is_here = |mutant: &&Mutant| source_of(&mutant.path) == Some(source);
        let here: Vec<Mutant> = mutants.iter().filter(is_here).cloned().collect();
        let batch = budget.map_or(here.len(), |_| BATCH).max(1);
        for batch in here.chunks(batch) {
            if budget.is_some_and(|budget| start.elapsed() >= budget) {
                return Ok(tally);
            }
            tally.add(runner.run(tests, batch)?);
        }
    }
    Ok(tally)
}

/// # Errors
///
/// A mutant has lived without an excuse, or an excuse is not needed.
fn verdict(lived: &[&Mutant], stale: &[String], held: &Held) -> Result<(), Failure> {
    let mut wrong: Vec<String> = lived
        .iter()
        .filter(|mutant| !held.excuses(mutant))
        .map(|mutant| format!("no test notices `{mutant}`"))
        .collect();
    wrong.extend(stale.iter().map(|excuse| format!("{} excuses in vain `{excuse}`", held::PATH)));
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.push(format!(
        "write a test that fails, or say in {} why the change does no harm",
        held::PATH
    ));
    Err(Failure::new(wrong.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutants(names: &str) -> Vec<Mutant> {
        list::read(names).expect("names")
    }

    fn held(text: &str) -> Held {
        Held::parse(text).expect("a list")
    }

    fn parse(args: &[&str]) -> Option<Mutants> {
        Mutants::parse(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn files_and_directories_are_asked_for() {
        let held = held("- `crates/a/src/held.rs`\n");
        let asks_for = |args: &[&str], path: &str| match parse(args) {
            Some(Mutants::OfFiles(files)) => {
                !files.choose(&mutants(&format!("{path}:1:1: replace x in f")), &held).is_empty()
            }
            other => panic!("{other:?}"),
        };
        let path = "crates/a/src/b.rs";
        for asked in [path, "crates/a/src", "crates/a/src/", "crates"] {
            assert!(asks_for(&[asked], path), "{asked}");
            assert!(asks_for(&["x", asked], path), "{asked}");
        }
        for asked in ["crates/a/src/b", "b.rs", "crates/a/s", "crates/a/src/held.rs"] {
            assert!(!asks_for(&[asked], path), "{asked}");
        }
        assert!(asks_for(&[], "crates/a/src/held.rs"));
        assert!(!asks_for(&[], path));
        assert_eq!(parse(&["--change"]), Some(Mutants::OfChange));
        let bad: [&[&str]; 6] = [
            &["--list"],
            &[""],
            &["--change", path],
            &[path, "--change"],
            &["--sample"],
            &["--sample", path],
        ];
        for bad in bad {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn a_sample_takes_as_many_of_each_directory() {
        let all: Vec<String> = (1..=9)
            .flat_map(|line| {
                ["a", "b"].map(|name| format!("crates/{name}/c.rs:{line}:1: replace {line} in f"))
            })
            .collect();
        let all = mutants(&all.join("\n"));
        let chosen = |args: &[&str]| match parse(args) {
            Some(Mutants::OfFiles(files)) => files.choose(&all, &held("")),
            other => panic!("{other:?}"),
        };
        let both = chosen(&["--sample", "4", "crates/a", "crates/b", "crates/a/c.rs"]);
        let of = |name: &str| both.iter().filter(|mutant| mutant.path.contains(name)).count();
        assert_eq!((of("a/c"), of("b/c"), both.len()), (4, 4, 8));
        assert_eq!(chosen(&["--sample", "99", "crates/a"]).len(), 9);
        assert_eq!(chosen(&["crates"]).len(), 18);
    }

    #[test]
    fn a_sample_is_bounded_and_stable_and_begins_with_files_that_are_held() {
        let names = |lines: std::ops::Range<usize>, first: usize| -> Vec<Mutant> {
            let names: Vec<String> = lines
                .flat_map(|line| {
                    ["free", "held"].map(|file| {
                        format!("crates/a/src/{file}.rs:{}:1: replace x in f{line}", first + line)
                    })
                })
                .collect();
            mutants(&names.join("\n"))
        };
        let held = held("- `crates/a/src/held.rs`\n");
        let ids = |all: Vec<Mutant>| -> Vec<String> {
            sample(all, &held).iter().map(|one| format!("{}: {}", one.path, one.id())).collect()
        };
        let chosen = ids(names(0..30, 1));
        assert_eq!(chosen.len(), MAX);
        assert!(chosen[..30].iter().all(|id| id.contains("held.rs")), "{chosen:?}");
        assert!(chosen[30..].iter().all(|id| id.contains("free.rs")), "{chosen:?}");
        // Neither lines above nor the order of the list matter.
        let mut moved = names(0..30, 100);
        moved.reverse();
        assert_eq!(ids(moved), chosen);
    }

    #[test]
    fn what_lives_without_an_excuse_fails_and_so_does_an_excuse_without_need() {
        let lived = mutants("crates/a/src/b.rs:1:2: replace || with && in c");
        let lived: Vec<&Mutant> = lived.iter().collect();
        let excused = held("- `crates/a/src/b.rs`\n  - `replace || with && in c`: why.\n");
        verdict(&lived, &[], &excused).expect("excused");
        verdict(&[], &[], &excused).expect("nothing lives");
        let why = verdict(&lived, &[], &held("")).expect_err("lives").to_string();
        assert!(why.contains("b.rs:1:2: replace || with && in c"), "{why}");
        let why = verdict(&[], &["x".to_owned()], &excused).expect_err("stale").to_string();
        assert!(why.contains("in vain `x`"), "{why}");
    }
}
