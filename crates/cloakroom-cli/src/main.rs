//! `cloakroom`: the operator's tool.
//!
//! A thin layer over public calls of the library: [`cloakroom::operator`], [`cloakroom::Issuer`] and
//! the builders of the stores.

mod args;
mod commands;
mod failure;
mod output;
mod secrets;
mod settings;
mod store;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, Command};
use crate::commands::Context;
use crate::failure::Failure;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("cloakroom: {failure}");
            ExitCode::from(failure.status as u8)
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Keys(command) => commands::keys::run(&context, command).await?,
        Command::Sessions(command) => commands::sessions::run(&context, command).await?,
        Command::Grants(command) => commands::grants::run(&context, command).await?,
        Command::Tokens(command) => commands::tokens::run(&context, command).await?,
        Command::Maintain => commands::maintain::run(&context).await?,
        Command::Migrate { dry_run } => commands::migrate::run(&context, dry_run).await?,
        Command::Doctor { skip_rows } => return commands::doctor::run(&context, skip_rows).await,
        Command::Restore(command) => commands::restore::run(&context, command).await?,
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "cloakroom",
                &mut std::io::stdout(),
            );
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Cli::command());
            page.render(&mut std::io::stdout()).map_err(|error| {
                Failure::refused(format!("the page cannot be written: {error}"))
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
