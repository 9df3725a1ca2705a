//! What a change touches.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::command::Failure;

/// The diff of the crates: against the commit where the tree left `origin/main`, or against the
/// commit before, if the tree is `origin/main` itself or an earlier state of it.
///
/// # Errors
///
/// There is nothing to compare with: no repository, or one that begins with this commit.
pub(crate) fn diff(directory: &Path) -> Result<String, Failure> {
    let base = base(directory).ok_or_else(|| {
        Failure::new("this clone has neither an `origin/main` to compare with nor a commit before")
    })?;
    // Against the files as they are now, committed or not. The user's settings must not change
    // the format.
    let format = ["--no-color", "--no-ext-diff", "--src-prefix=a/", "--dst-prefix=b/"];
    let diff = ["diff"].into_iter().chain(format).chain([&*base, "--", "crates"]);
    git(directory, &diff.collect::<Vec<_>>())
        .ok_or_else(|| Failure::new(format!("git cannot compare the tree with {base}")))
}

fn base(directory: &Path) -> Option<String> {
    let commit = |name: &str| {
        hash(directory, &["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
    };
    let head = commit("HEAD")?;
    let main = commit("origin/main");
    match main.and_then(|main| hash(directory, &["merge-base", &main, &head])) {
        Some(fork) if fork != head => Some(fork),
        _ => commit("HEAD~1"),
    }
}

fn hash(directory: &Path, args: &[&str]) -> Option<String> {
    git(directory, args).map(|line| line.trim_end().to_owned())
}

/// What git prints, or nothing if it fails.
fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let Output { status, stdout, .. } = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(args)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    status.success().then(|| String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::command::target;
    use crate::packages::start_anew;

    /// A repository in an empty folder.
    struct Repository(PathBuf);

    impl Repository {
        fn new(name: &str) -> Self {
            let directory = target().expect("a target").join("xtask-tests").join(name);
            start_anew(&directory).expect("an empty folder");
            let repository = Self(directory);
            repository.git("init --quiet --initial-branch=main");
            repository
        }

        fn git(&self, args: &str) -> String {
            let args: Vec<&str> = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
                .into_iter()
                .chain(args.split_whitespace())
                .collect();
            hash(&self.0, &args).unwrap_or_else(|| panic!("git {args:?}"))
        }

        fn write(&self, text: &str) {
            fs::create_dir_all(self.0.join("crates")).expect("a folder");
            fs::write(self.0.join("crates/a.rs"), text).expect("written");
            self.git("add .");
        }

        fn commit(&self, text: &str) -> String {
            self.write(text);
            self.git("commit --quiet --message=x");
            self.git("rev-parse HEAD")
        }

        fn base(&self) -> Option<String> {
            base(&self.0)
        }
    }

    #[test]
    fn a_branch_is_compared_with_where_it_left_main() {
        let repository = Repository::new("branch");
        let fork = repository.commit("one");
        repository.git("update-ref refs/remotes/origin/main HEAD");
        repository.commit("two");
        repository.commit("three");
        assert_eq!(repository.base(), Some(fork.clone()));

        // Main has gone on since.
        repository.git("checkout --quiet -b other HEAD~2");
        let main = repository.commit("four");
        assert_ne!(main, fork);
        repository.git("update-ref refs/remotes/origin/main HEAD");
        repository.git("checkout --quiet main");
        assert_eq!(repository.base(), Some(fork));
    }

    #[test]
    fn main_is_compared_with_the_commit_before() {
        let repository = Repository::new("main");
        let first = repository.commit("one");
        let second = repository.commit("two");
        assert_eq!(repository.base(), Some(first.clone()), "no origin");
        repository.git("update-ref refs/remotes/origin/main HEAD");
        assert_eq!(repository.base(), Some(first), "at origin/main");
        repository.commit("three");
        repository.git("update-ref refs/remotes/origin/main HEAD");
        repository.commit("four");
        repository.git("update-ref refs/remotes/origin/main HEAD");
        repository.git("checkout --quiet --detach HEAD~1");
        assert_eq!(repository.base(), Some(second), "behind origin/main");
    }

    #[test]
    fn a_clone_without_a_past_has_no_base() {
        let repository = Repository::new("shallow");
        assert_eq!(repository.base(), None, "no commit");
        repository.commit("one");
        repository.git("update-ref refs/remotes/origin/main HEAD");
        assert_eq!(repository.base(), None);
        let why = diff(&repository.0).expect_err("nothing to compare with").to_string();
        assert!(why.contains("neither"), "{why}");
    }

    #[test]
    fn the_diff_is_of_the_files_as_they_are_and_in_one_format() {
        let repository = Repository::new("diff");
        repository.commit("one\n");
        repository.commit("two\n");
        repository.git("config diff.noprefix true");
        repository.git("config color.ui always");
        repository.write("three\n");
        let diff = diff(&repository.0).expect("a diff");
        for line in ["--- a/crates/a.rs", "+++ b/crates/a.rs", "-one", "+three"] {
            assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
        }
    }
}
