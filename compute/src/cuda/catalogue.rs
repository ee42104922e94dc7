//! Published dense int8 rates of NVIDIA's cards, from their data sheets: what a measured rate is a share of.
//!
//! A card that is not listed shows no share. Names are matched from the most to the least specific.

/// (part of the driver's name, dense int8 operations a second in units of 10^12).
const PEAKS: [(&str, f64); 22] = [
    ("H200 NVL", 1671.0),
    ("H200", 1979.0),
    ("GH200", 1979.0),
    ("H100 PCIe", 1513.0),
    ("H100 NVL", 1671.0),
    ("H100", 1979.0),
    ("H20", 296.0),
    ("A100", 624.0),
    ("A800", 624.0),
    ("A40", 299.3),
    ("A30", 330.0),
    ("A10G", 140.0),
    ("A10", 250.0),
    ("L40S", 733.0),
    ("L40", 362.0),
    ("L4", 242.5),
    ("RTX 4090", 660.6),
    ("RTX 4080", 389.9),
    ("RTX 3090", 284.0),
    ("RTX 3080", 238.0),
    ("RTX 2080 Ti", 215.2),
    ("T4", 130.0),
];

/// The published rate of a card by the driver's name for it.
pub fn peak_int8_tops(name: &str) -> Option<f64> {
    PEAKS.iter().find(|(part, _)| contains_word(name, part)).map(|&(_, peak)| peak)
}

/// `part` stands in `name` with no letter or digit directly before or after it.
fn contains_word(name: &str, part: &str) -> bool {
    name.match_indices(part).any(|(at, _)| {
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric());
        edge(name[..at].chars().next_back()) && edge(name[at + part.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_words() {
        assert_eq!(peak_int8_tops("NVIDIA H200"), Some(1979.0));
        assert_eq!(peak_int8_tops("NVIDIA H100 80GB HBM3"), Some(1979.0));
        assert_eq!(peak_int8_tops("NVIDIA H100 PCIe"), Some(1513.0));
        assert_eq!(peak_int8_tops("NVIDIA A100-SXM4-80GB"), Some(624.0));
        assert_eq!(peak_int8_tops("NVIDIA L4"), Some(242.5));
        assert_eq!(peak_int8_tops("Quadro RTX 40900"), None);
    }
}
