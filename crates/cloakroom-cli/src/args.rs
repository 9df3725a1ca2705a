//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Looks after the store of an authorization server that uses cloakroom.
///
/// It works on the store itself, whether or not servers are running. Secrets come from the
/// environment or from a file, and never from the command line, which other users of the machine
/// can read.
#[derive(Debug, Parser)]
#[command(
    name = "cloakroom",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_long_help = AFTER_HELP
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  CLOAKROOM_STORE, CLOAKROOM_ISSUER, CLOAKROOM_TENANT   as the options of these names
  CLOAKROOM_HANDLE_SECRET          ID:HEX or HEX (then ID is 1): the current handle secret
  CLOAKROOM_FORMER_HANDLE_SECRETS  ID:HEX,…: former handle secrets
  CLOAKROOM_SEALING_KEY            ID:HEX or HEX (then ID is 1): the current key-encryption key
  CLOAKROOM_FORMER_SEALING_KEYS    ID:HEX,…: former key-encryption keys

Exit status:
  0  done, or nothing is wrong
  1  refused, or `doctor` found something
  2  the command line, a file or a secret is not valid
  3  the store is not available";

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Where the store is: `sqlite:PATH`, `postgres://…`, `mysql://…` or `redis://…`. A URL with a
    /// password belongs in the variable `CLOAKROOM_STORE`.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// The URL of the issuer that the store belongs to.
    #[arg(long, global = true, value_name = "URL", env = "CLOAKROOM_ISSUER")]
    pub(crate) issuer: Option<String>,
    /// The tenant, if several issuers share the store (`TenantStore`).
    #[arg(long, global = true, value_name = "NAME", env = "CLOAKROOM_TENANT")]
    pub(crate) tenant: Option<String>,
    /// What the names of tables or keys begin with, if the servers do not use the default.
    #[arg(long, global = true, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// The schema of the tables in PostgreSQL, if the servers do not use the default.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) schema: Option<String>,
    /// A file with secrets: lines such as `CLOAKROOM_SEALING_KEY=…`. They take precedence over the
    /// environment.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) secrets_file: Option<PathBuf>,
    /// A TOML file with the settings for which the servers do not use the defaults: key policy,
    /// lifetimes and former issuers.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,
    /// Writes the result as JSON. Times are milliseconds since 1970.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists and changes signing keys.
    #[command(subcommand)]
    Keys(Keys),
    /// Lists and ends sessions.
    #[command(subcommand)]
    Sessions(Sessions),
    /// Shows grants.
    #[command(subcommand)]
    Grants(Grants),
    /// Says what a token is, and why it is inactive.
    #[command(subcommand)]
    Tokens(Tokens),
    /// Rotates signing keys that are due, and deletes what has ended. Servers that run
    /// `run_maintenance` do this by themselves.
    Maintain,
    /// Creates or migrates the tables.
    Migrate {
        /// Prints the SQL, and changes nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Looks for what is wrong with the store, its settings and its keys. It changes nothing except
    /// the newest revocation bound, which every program that opens a store raises.
    Doctor {
        /// Does not read every grant, and looks up none that was revoked: on a large store, that takes
        /// minutes.
        #[arg(long)]
        skip_rows: bool,
    },
    /// Repeats the revocations that a restored store has forgotten. Run it before you start the
    /// servers again.
    Restore(Restore),
    /// Prints a script that completes commands in a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Prints the manual page.
    #[command(hide = true)]
    Man,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Lists the signing keys.
    List,
    /// Ends the current signing key. Its successor, which every verifier knows, signs at once.
    Rotate {
        /// The key that signs with this algorithm, if the servers use several.
        #[arg(long)]
        algorithm: Option<String>,
    },
    /// Ends a key now. It stays in the JWK Set until the tokens that it signed have expired.
    Retire {
        /// The key's `kid`.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Marks a key as compromised, which cannot be undone. It leaves the JWK Set, and a revocation
    /// denies everything that it has signed.
    Compromise {
        /// The key's `kid`.
        #[arg(allow_hyphen_values = true)]
        kid: String,
    },
    /// Publishes a private key of another program: PEM (PKCS#8, PKCS#1, SEC 1) or a JWK. It signs
    /// after the keys that are there already, once every verifier knows it.
    Import {
        /// A file that contains only the private key.
        file: PathBuf,
        /// The algorithm that it signs with.
        #[arg(long, default_value = "ES256")]
        algorithm: String,
    },
    /// Seals the private keys under the current key-encryption key, and says which older ones you
    /// may remove.
    Reseal,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// Lists live sessions.
    List {
        #[command(flatten)]
        of: Owner,
        /// The largest number of sessions to list.
        #[arg(long, default_value_t = 100, value_name = "NUMBER")]
        limit: usize,
        /// Starts after this grant. A list that was cut off at the limit names it at its end.
        #[arg(long, value_name = "GRANT", allow_hyphen_values = true)]
        after: Option<String>,
    },
    /// Ends sessions: of a user everywhere, of a user at one client, of a client, or a single one.
    Revoke {
        #[command(flatten)]
        of: OwnerOrGrant,
        /// Ends only sessions of the user whose device has this value, such as `name=Firefox`.
        #[arg(long, requires = "user", value_name = "NAME=VALUE", allow_hyphen_values = true)]
        device: Option<String>,
        /// Says what would end, and ends nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Owner {
    /// Sessions of this user.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) user: Option<String>,
    /// Sessions of this client; with --user, those of the user at this client.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) client: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct OwnerOrGrant {
    /// Sessions of this user.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) user: Option<String>,
    /// Sessions of this client; with --user, those of the user at this client.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) client: Option<String>,
    /// The session of this grant.
    #[arg(long, conflicts_with_all = ["user", "client"], allow_hyphen_values = true)]
    pub(crate) grant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Grants {
    /// Shows what is known of a grant.
    Show {
        /// The grant.
        #[arg(allow_hyphen_values = true)]
        grant: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Reads a token from standard input, and says what it is and why it is inactive. Inspecting a
    /// token changes nothing.
    Inspect {
        /// Reads the token from this file.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Takes what somebody pastes here by mistake, so that it is refused without being repeated.
        #[arg(hide = true, num_args = 0..)]
        token: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A file with what to revoke again: events of your audit trail as JSON, one per line, or lines
    /// such as `subject alice`, `client web-app`, `grant ID` or `key KID`.
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// Marks this signing key as compromised. May be repeated.
    #[arg(long = "compromise", value_name = "KID", allow_hyphen_values = true)]
    pub(crate) compromised: Vec<String>,
    /// Ends the current signing key, if its successor is known to every verifier.
    #[arg(long)]
    pub(crate) rotate: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A random id in base64url begins with a hyphen once in 64 times, and then looks like an
    /// option, even like one that exists.
    #[test]
    fn an_id_may_look_like_an_option() {
        let commands = [
            "keys retire ID",
            "keys retire ID --json",
            "keys --json compromise ID",
            "restore --compromise ID --compromise ID --rotate",
            "sessions list --user ID --client ID --after ID --limit 3",
            "sessions revoke --user ID --client ID --device ID --dry-run",
            "sessions revoke --grant ID --dry-run",
            "grants show ID",
            "grants show ID --store sqlite:a",
        ];
        for id in ["-oQydftX63gF9N8Zmo9t2Q", "-hPIyLC1", "-VPIyLC1", "--IyLC1", "-", "--json-x"] {
            for command in commands {
                let line = format!("cloakroom {}", command.replace("ID", id));
                let read = Cli::try_parse_from(line.split(' '));
                let read = read.unwrap_or_else(|error| panic!("{line}: {error}"));
                let read = format!("{:?}", read.command);
                let is_in_it = read.matches(&format!("{id:?}")).count();
                assert_eq!(is_in_it, command.matches("ID").count(), "{line}: {read}");
            }
        }
    }

    #[test]
    fn an_option_is_no_id() {
        for line in ["keys retire --json", "grants show --help", "grants show -h", "keys retire"] {
            let read = Cli::try_parse_from(format!("cloakroom {line}").split(' '));
            assert!(read.is_err(), "{line}: {read:?}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
