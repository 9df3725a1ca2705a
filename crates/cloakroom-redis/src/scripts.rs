//! The scripts. Each runs in one slot, and touches only the keys that it is given.

use std::sync::LazyLock;

use redis::{Cmd, RedisResult, Value};

use crate::connection::Link;

/// A script, and the digest under which the server keeps it.
pub(crate) struct Script {
    code: &'static str,
    digest: LazyLock<String>,
}

impl Script {
    /// Runs it. It may be sent twice.
    pub(crate) async fn run(
        &self,
        link: &Link,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> RedisResult<Value> {
        match link.send(&call("EVALSHA", &self.digest, keys, args)).await {
            // Not `SCRIPT LOAD`, which does not go to the node that the keys are on.
            Err(error) if error.code() == Some("NOSCRIPT") => {
                Box::pin(link.send(&call("EVAL", self.code, keys, args))).await
            }
            result => result,
        }
    }

    /// Runs it for a write that replicas must have, if the store waits for them. It may be sent twice.
    pub(crate) async fn run_safely(
        &self,
        link: &Link,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> RedisResult<Value> {
        let place = keys.first().copied().unwrap_or_default();
        match link.send_safely(&call("EVALSHA", &self.digest, keys, args), place).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                Box::pin(link.send_safely(&call("EVAL", self.code, keys, args), place)).await
            }
            result => result,
        }
    }

    /// The same, but it is not sent twice.
    pub(crate) async fn run_once_safely(
        &self,
        link: &Link,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> RedisResult<Value> {
        let place = keys.first().copied().unwrap_or_default();
        match link.send_once_safely(&call("EVALSHA", &self.digest, keys, args), place).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                Box::pin(link.send_once_safely(&call("EVAL", self.code, keys, args), place)).await
            }
            result => result,
        }
    }

    /// Runs it. It is not sent twice, since its second answer would be another one.
    pub(crate) async fn run_once(
        &self,
        link: &Link,
        keys: &[&[u8]],
        args: &[&[u8]],
    ) -> RedisResult<Value> {
        match link.send_once(&call("EVALSHA", &self.digest, keys, args)).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                Box::pin(link.send_once(&call("EVAL", self.code, keys, args))).await
            }
            result => result,
        }
    }
}

fn call(name: &str, script: &str, keys: &[&[u8]], args: &[&[u8]]) -> Cmd {
    let size = keys.iter().chain(args).map(|part| part.len()).sum::<usize>();
    let mut command = Cmd::with_capacity(3 + keys.len() + args.len(), size + script.len() + 16);
    command.arg(name).arg(script).arg(keys.len());
    for part in keys.iter().chain(args) {
        command.arg(*part);
    }
    command
}

/// A script begins with what it shares with others.
macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $first:literal $($file:literal)+;)*) => {
        $($(#[$doc])* pub(crate) static $name: Script = {
            const CODE: &str = concat!(
                $first, "\n", include_str!("scripts/lib.lua"), $(include_str!(concat!("scripts/", $file)),)+
            );
            Script { code: CODE, digest: LazyLock::new(|| redis::Script::new(CODE).get_hash().to_owned()) }
        };)*
    };
}

scripts! {
    CREATE = "" "create.lua";
    ADVANCE = "" "grant.lua" "advance.lua";
    // A server whose memory is full still revokes and deletes.
    REVOKE_GRANT = "#!lua flags=allow-oom" "grant.lua" "revoke_grant.lua";
    REVOKE_TOKEN = "#!lua flags=allow-oom" "revoke_token.lua";
    SWEEP = "#!lua flags=allow-oom" "grant.lua" "sweep.lua";
    UNLIST = "#!lua flags=allow-oom" "grant.lua" "unlist.lua";
    REAP = "#!lua flags=allow-oom" "grant.lua" "reap.lua";
    OPEN = "#!lua flags=allow-oom" "log.lua" "open.lua";
    APPEND = "#!lua flags=allow-oom" "log.lua" "append.lua";
    READ = "#!lua flags=allow-oom" "log.lua" "read.lua";
    TRIM_LOG = "#!lua flags=allow-oom" "trim_log.lua";
    TRIM_RULES = "#!lua flags=allow-oom" "trim_rules.lua";
    WORK = "#!lua flags=allow-oom" "work.lua";
    CLOSE = "#!lua flags=allow-oom" "close.lua";
    INSERT_KEY = "" "insert_key.lua";
    REPLACE_KEY = "#!lua flags=allow-oom" "replace_key.lua";
    SET_CHECK_VALUE = "" "set_check_value.lua";
    SPEND = "" "spend.lua";
}
