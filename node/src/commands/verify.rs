//! `tops-node verify`: is this receipt true, and if not, at which stage does it fail.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use tops_protocol::codec::{AnyReceipt, RECEIPT_TEXT_MAX};
use tops_protocol::work::v1::Variant;

use crate::check::{self, Finding, Recomputed, Report};
use crate::cli::{Answer, Failure};
use crate::settings::Layers;
use crate::{config, devices};

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A file with one receipt in text form, or - for standard input.
    file: PathBuf,
    /// The signer's key, 33 or 65 bytes as hex (also VERIFY_PUBKEY); a v1 receipt carries none.
    #[arg(long, value_name = "HEX")]
    pubkey: Option<String>,
}

/// Checks it.
pub fn run(arguments: &Arguments, layers: &Layers) -> Result<Answer, Failure> {
    let (choice, wanted) = config::compute_choice(layers)?;
    let key = match &arguments.pubkey {
        Some(text) => Some(config::public_key(text).map_err(Failure::Usage)?),
        None => config::verify_key(layers)?,
    };
    let text = read(&arguments.file)?;
    let backend = devices::open_one(choice, wanted.as_deref())?;
    let report = check::check(&text, key.as_deref(), &Recomputed(&*backend))
        .with_context(|| format!("{} could not check the root", backend.device()))?;
    Ok(answer(&report))
}

/// At most one byte more than any receipt, so that a longer text is seen to be too long.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = RECEIPT_TEXT_MAX as u64 + 1;
    if file == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut text).context("cannot read standard input")?;
    } else {
        std::fs::File::open(file)
            .and_then(|f| f.take(limit).read_to_end(&mut text))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(text)
}

/// The name of a v1 build.
pub fn variant_word(variant: Variant) -> &'static str {
    match variant {
        Variant::Plain => "v1",
        Variant::Mixed => "v1-mixed",
    }
}

fn answer(report: &Report) -> Answer {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<10} {value}\n"));
    let schema = if report.receipt.is_some() { Finding::Good } else { Finding::Bad };
    let mut json = json!({ "ok": report.ok(), "schema": schema.word(), "signature": report.signature.word(), "root": report.root.word() });
    match &report.receipt {
        Some(AnyReceipt::V2(receipt)) => {
            json["work"] = json!("v2");
            json["unit"] = json!(receipt.unit().to_hex());
            json["miner"] = json!(receipt.miner.to_hex());
            json["network"] = json!(receipt.network.to_hex());
            line("work", &format!("v2 {}", receipt.shape));
            line("miner", &receipt.miner.to_hex());
        }
        Some(AnyReceipt::V1(receipt)) => {
            json["work"] = report.variant.map_or(json!("v1 or v1-mixed"), |v| json!(variant_word(v)));
            line("work", &format!("{} {}x{}x{}", report.variant.map_or("v1 or v1-mixed", variant_word), receipt.m, receipt.n, receipt.k));
        }
        None => {}
    }
    if let Some(id) = report.id {
        json["id"] = json!(id.to_hex());
        line("id", &id.to_hex());
    }
    line("schema", schema.word());
    line("signature", report.signature.word());
    line("root", report.root.word());
    match &report.failed {
        Some((stage, why)) => {
            json["stage"] = json!(stage.to_string());
            json["why"] = json!(why);
            line("NO", &format!("failed at {stage}: {why}"));
        }
        None => {
            json["stage"] = Value::Null;
            line("YES", "the receipt is true");
        }
    }
    Answer { text, json, yes: report.ok() }
}
