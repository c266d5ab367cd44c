//! `ecash gateways`

use std::fmt;

use federation_client::{Client, Result};
use federation_lightning::{GatewayFees, GatewayInfo};
use serde::Serialize;

use crate::output::{print, sat};
use crate::progress::Progress;

#[derive(Serialize)]
struct Gateway {
    #[serde(flatten)]
    info: GatewayInfo,
    /// Whether it answers now.
    alive: bool,
}

#[derive(Serialize)]
struct Output {
    gateways: Vec<Gateway>,
}

fn fees(fees: &GatewayFees) -> String {
    format!("{} + {} ppm", sat(fees.base), fees.ppm)
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.gateways.is_empty() {
            return f.write_str("no gateway has announced itself");
        }
        for Gateway { info, alive } in &self.gateways {
            let name = if info.alias.is_empty() { "-" } else { &info.alias };
            writeln!(
                f,
                "{}  {name}  {}  pays for {}, receives for {}",
                info.api_url,
                if *alive { "up" } else { "down" },
                fees(&info.send_fees),
                fees(&info.receive_fees)
            )?;
        }
        Ok(())
    }
}

pub async fn run(client: &Client, json: bool) -> Result<()> {
    let progress = Progress::new("asking the guardians");
    let mut gateways = Vec::new();
    for info in client.gateways().await? {
        let alive = client.probe_gateway(&info.api_url).await.is_ok();
        gateways.push(Gateway { info, alive });
    }
    drop(progress);
    print(&Output { gateways }, json)
}
