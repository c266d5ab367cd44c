//! What somebody else shall scan, as a QR code for a terminal.

use std::io::IsTerminal as _;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Whether a QR code is shown.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Qr {
    /// Show a QR code even if the output goes to a file or another program
    #[arg(long)]
    qr: bool,
}

impl Qr {
    /// The lines that follow the text, if any: never in JSON, and for a terminal as wide as it is.
    pub fn of(self, text: &str, json: bool) -> Option<String> {
        let terminal = std::io::stdout().is_terminal();
        if json || !(self.qr || terminal) {
            return None;
        }
        let width = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        Some(draw(text, width.filter(|_| terminal)))
    }
}

/// The code of a bech32 text, or a sentence that says why there is none.
fn draw(text: &str, columns: Option<usize>) -> String {
    // In upper case it is the same text, and takes two thirds of the space.
    let Ok(code) = QrCode::with_error_correction_level(text.to_uppercase(), EcLevel::L) else {
        return format!("(too long for a QR code: {} characters)", text.len());
    };
    // With four modules of margin on each side.
    let wide = code.width().saturating_add(8);
    if columns.is_some_and(|columns| columns < wide) {
        return format!("(the QR code needs a terminal of {wide} columns)");
    }
    // Light modules are drawn (the library calls what is drawn dark), since terminals are mostly dark.
    code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera reads of it on a dark terminal.
    fn scan(drawn: &str) -> String {
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        const SCALE: usize = 4;
        let light = |x: usize, y: usize| {
            let half = lines[y / 2].get(x).copied().unwrap();
            match half {
                '█' => true,
                ' ' => false,
                '▀' => y.is_multiple_of(2),
                '▄' => !y.is_multiple_of(2),
                other => panic!("{other:?}"),
            }
        };
        let (width, height) = (lines[0].len(), 2 * lines.len());
        let pixel = |x: usize, y: usize| if light(x / SCALE, y / SCALE) { 255 } else { 0 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(SCALE * width, SCALE * height, pixel);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn a_camera_reads_the_text() {
        let ecash = format!("clnecash1{}", "qpzry9x8gf2tvdw0".repeat(40));
        for text in ["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", &ecash] {
            assert_eq!(scan(&draw(text, None)), text.to_uppercase());
            assert_eq!(scan(&draw(text, Some(200))), text.to_uppercase());
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert_eq!(draw(&"q".repeat(5000), None), "(too long for a QR code: 5000 characters)");
        let narrow = draw("bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080", Some(30));
        assert!(narrow.starts_with("(the QR code needs a terminal of ") && narrow.lines().count() == 1);
    }

    #[test]
    fn nothing_is_added_to_json_or_for_a_program() {
        assert_eq!(Qr { qr: true }.of("bc1q", true), None);
        // (Tests have no terminal.)
        if !std::io::stdout().is_terminal() {
            assert_eq!(Qr { qr: false }.of("bc1q", false), None);
            assert!(Qr { qr: true }.of("bc1q", false).is_some());
        }
    }
}
