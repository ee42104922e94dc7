//! What a failed dial says about an address that the operator gave, in words.

use std::error::Error;
use std::io;

use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError;

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Half a sentence.
    pub cause: String,
    /// Another half.
    pub advice: String,
}

/// What speaks against the address; `None` when the reason lies with this node, or when the address names no peer (`named` is false) and
/// another one than last time answers there, which it may.
pub fn complaint(error: &DialError, named: bool) -> Option<Complaint> {
    let (cause, advice) = match error {
        DialError::WrongPeerId { obtained, .. } if named => (
            format!("{obtained} answers there, another peer than the address names"),
            format!("if that is the peer you mean, end the address with /p2p/{obtained}"),
        ),
        DialError::Transport(errors) => match errors.last()? {
            (_, TransportError::MultiaddrNotSupported(_)) => (
                "addresses of this form cannot be called".to_owned(),
                "give one like /dns/HOST/tcp/4068/p2p/ID or /ip4/ADDRESS/udp/4068/quic-v1/p2p/ID".to_owned(),
            ),
            (_, TransportError::Other(error)) => {
                (root(error), "check the address, that a node or gate listens there, and the firewalls on the way".to_owned())
            }
        },
        _ => return None,
    };
    Some(Complaint { cause, advice })
}

/// The innermost error, in one line. An I/O error that wraps another one skips it as its source.
fn root(error: &io::Error) -> String {
    let mut innermost: &(dyn Error + 'static) = error;
    loop {
        let wrapped = innermost.downcast_ref::<io::Error>().and_then(|io| io.get_ref()).map(|inner| inner as &(dyn Error + 'static));
        let Some(next) = wrapped.or_else(|| innermost.source()) else { break };
        innermost = next;
    }
    innermost.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use libp2p::{Multiaddr, PeerId};

    use super::*;

    fn address() -> Multiaddr {
        "/ip4/127.0.0.1/tcp/1".parse().unwrap()
    }

    #[test]
    fn the_innermost_error_is_told() {
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "nobody\n there");
        let wrapped = io::Error::other(io::Error::other(refused));
        let told = complaint(&DialError::Transport(vec![(address(), TransportError::Other(wrapped))]), false).unwrap();
        assert_eq!(told.cause, "nobody there");
        let form = complaint(&DialError::Transport(vec![(address(), TransportError::MultiaddrNotSupported(address()))]), true).unwrap();
        assert!(form.advice.contains("/tcp/"));
    }

    #[test]
    fn who_answers_is_told_where_somebody_else_was_named() {
        let obtained = PeerId::random();
        let wrong = DialError::WrongPeerId { obtained, address: address() };
        let told = complaint(&wrong, true).unwrap();
        assert!(told.cause.contains(&obtained.to_string()) && told.advice.contains(&format!("/p2p/{obtained}")));
        assert_eq!(complaint(&wrong, false), None);
        assert_eq!(complaint(&DialError::Aborted, true), None);
    }
}
