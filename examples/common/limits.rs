//! Every limit of a job as a flag of the command line.
//!
//! Invariant: there is a flag for each of [`Limits::files`], made from the description of the file
//! there. A value that no kernel accepts is a usage error that names the flag, before anything is
//! created.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use anyhow::{Context, bail};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use jobworker::{Device, LimitFile, Limits};

use crate::common::words;

/// The limits that the flags have asked for.
pub(crate) struct LimitFlags {
    pub(crate) limits: Limits,
    /// Their files, with the values as they were given.
    #[allow(dead_code, reason = "each example is a crate, and only one shows them")]
    pub(crate) given: Vec<(String, String)>,
}

/// The flag of a limit: the name of its file with dashes, up to the part that differs between
/// machines.
fn flag(file: &LimitFile) -> String {
    let (fixed, _) = file.name().split_once(".<").unwrap_or((file.name(), ""));
    fixed.replace('.', "-")
}

/// Whether the flag takes a part of the file's name as well, as in `2MB=64M`.
fn is_pattern(file: &LimitFile) -> bool {
    file.name().contains('<')
}

/// Any other file of the cgroup.
const RAW: &str = "limit";

impl Args for LimitFlags {
    fn augment_args(command: Command) -> Command {
        let flags = Limits::files().iter().map(|file| {
            let mut help = file.help().to_owned();
            if file.is_per_device() {
                help.push_str("; a device is given by path or by numbers");
            }
            let arg = Arg::new(flag(file)).long(flag(file)).help(help);
            let syntax = file.syntax();
            if file.is_flag() {
                return arg.action(ArgAction::SetTrue);
            }
            let arg = if is_pattern(file) {
                arg.value_name(format!("PAGE={syntax}"))
            } else {
                arg.value_name(syntax)
            };
            if is_pattern(file) || file.is_per_device() {
                arg.action(ArgAction::Append)
            } else {
                // A nice value may be negative.
                arg.allow_negative_numbers(true)
            }
        });
        let raw = Arg::new(RAW)
            .long(RAW)
            .value_name("FILE=VALUE")
            .action(ArgAction::Append)
            .help("Any other interface file of the cgroup, as it is");
        command.args(flags.chain([raw]).map(|arg| arg.help_heading("Limits")))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LimitFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self { limits: Limits::new(), given: Vec::new() };
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for file in Limits::files() {
            let flag = flag(file);
            if file.is_flag() {
                if matches.get_flag(&flag) {
                    named(&flag, "1", set(&mut self.limits, file, "1"))?;
                    self.given.push((file.name().to_owned(), "on".to_owned()));
                }
                continue;
            }
            for value in matches.get_many::<String>(&flag).into_iter().flatten() {
                named(&flag, value, set(&mut self.limits, file, value))?;
                self.given.push((file.name().to_owned(), value.clone()));
            }
        }
        for value in matches.get_many::<String>(RAW).into_iter().flatten() {
            named(RAW, value, set_raw(&mut self.limits, value))?;
            if let Some((file, value)) = value.split_once('=') {
                self.given.push((file.to_owned(), value.to_owned()));
            }
        }
        Ok(())
    }
}

/// Adds the flag and its value to an error.
fn named(flag: &str, value: &str, result: anyhow::Result<()>) -> Result<(), clap::Error> {
    result.map_err(|error| {
        let why = words::translated(&format!("{error:#}"));
        let text = format!("invalid value '{value}' for '--{flag}': {why}");
        clap::Error::raw(ErrorKind::ValueValidation, text)
    })
}

fn set(limits: &mut Limits, file: &LimitFile, text: &str) -> anyhow::Result<()> {
    if is_pattern(file) {
        let (page, size) = text.split_once('=').context("write it as PAGE=SIZE, as in 2MB=64M")?;
        limits.set(&file.name().replace("<size>", page), size)?;
    } else if file.is_per_device() {
        limits.set(file.name(), &with_numbers(text)?)?;
    } else {
        limits.set(file.name(), text)?;
    }
    Ok(())
}

fn set_raw(limits: &mut Limits, text: &str) -> anyhow::Result<()> {
    let form = "write it as FILE=VALUE, as in memory.high=100M";
    let (file, value) = text.split_once('=').context(form)?;
    Ok(limits.raw(file, value).validate()?)
}

/// Replaces the path of a device file by the numbers of its device.
fn with_numbers(text: &str) -> anyhow::Result<String> {
    let Some((path, value)) = text.split_once('=').filter(|(path, _)| path.contains('/')) else {
        return Ok(text.to_owned());
    };
    let file = fs::metadata(path).with_context(|| path.to_owned())?;
    if !file.file_type().is_block_device() {
        bail!("{path} is not a block device");
    }
    let device = Device::new(rustix::fs::major(file.rdev()), rustix::fs::minor(file.rdev()));
    Ok(format!("{device}={value}"))
}
