//! Nodes of the real network task with another mind.

use tokio::task::JoinHandle;
use tops_node::net::task::{Net, NetCommand, NetEvent, start_over};
use tops_protocol::engine::Verdict;

use super::member::Ground;

/// A node that takes everything, forwards nothing, and answers no question. It stays in meshes, tells of other peers, and answers pings: all
/// that a peer can see from outside is that nothing comes from it.
pub struct Silent {
    task: JoinHandle<()>,
}

impl Silent {
    pub(super) fn start(ground: &Ground, node: u32, bootstrap: &[u32]) -> anyhow::Result<Self> {
        let settings = ground.settings(node, bootstrap)?;
        let ways = ground.wires.ways(node, &settings.key)?;
        let Net { commands, mut events, view, .. } = start_over(settings, ways, ground.shared(node, false)?)?;
        let task = tokio::spawn(async move {
            // Kept, since the network task goes on while somebody looks.
            let _view = view;
            while let Some(event) = events.recv().await {
                let command = match event {
                    NetEvent::Gossip { message, .. } => NetCommand::Verdict { message, verdict: Verdict::Ignore },
                    NetEvent::Asked { answer, .. } => NetCommand::Answer { answer, with: None },
                    NetEvent::Up { .. } | NetEvent::Down { .. } | NetEvent::Replied { .. } => continue,
                };
                if commands.send(command).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { task })
    }

    /// Ends it.
    pub fn stop(self) {
        self.task.abort();
    }
}
