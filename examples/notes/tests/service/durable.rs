//! `kill -9`: what was acknowledged is there after the next start.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use crate::harness::{Client, Notes, folder, note, request};

/// Clients that write at the same time, so that their writes share transactions.
const WRITERS: usize = 4;

/// What was acknowledged to a client: the titles of its notes, or that they are deleted. It writes one note after
/// the other, changes each second one and deletes each fourth one, until its connection breaks.
#[derive(Debug, Default)]
struct Acknowledged {
    titles: BTreeMap<i64, Option<String>>,
    /// A write that was sent and not acknowledged may have happened.
    in_doubt: Option<i64>,
}

/// The kills are counted in acknowledgements, so that no time is measured.
struct Count {
    acknowledged: Mutex<usize>,
    changed: Condvar,
}

fn write(mut client: Client, name: usize, count: &Count) -> Acknowledged {
    let mut known = Acknowledged::default();
    let acknowledge = || {
        *count.acknowledged.lock().expect("no panic") += 1;
        count.changed.notify_all();
    };
    for number in 0.. {
        let title = format!("writer {name}, note {number}");
        let Some(answer) = exchange(&mut client, &note("POST", "/api/notes", &title)) else { break };
        assert_eq!(answer.status, 201);
        let (id, path) = (answer.id(), format!("/api/notes/{}", answer.id()));
        known.titles.insert(id, Some(title.clone()));
        acknowledge();
        let (change, new) = match number % 4 {
            1 => (note("PUT", &path, &format!("{title}, changed")), Some(format!("{title}, changed"))),
            3 => (request("DELETE", &path, "", ""), None),
            _ => continue,
        };
        known.in_doubt = Some(id);
        let Some(answer) = exchange(&mut client, &change) else { break };
        assert!(answer.status < 300, "{answer:?}");
        known.in_doubt = None;
        known.titles.insert(id, new);
        acknowledge();
    }
    known
}

/// `None`: the connection is broken.
fn exchange(client: &mut Client, request: &str) -> Option<crate::harness::Answer> {
    client.try_send(request).ok()?;
    client.try_answer().ok()
}

#[test]
fn no_acknowledged_write_is_lost_whenever_the_process_is_killed() {
    let folder = folder("durable");
    let (mut all, mut kills) = (BTreeMap::new(), 0);
    // Early ones fall into the start and the first transactions, late ones into checkpoints.
    for kill_after in (0..24).chain([40, 80, 160, 320, 640]) {
        let notes = Notes::start(&folder, &[]);
        check(&notes, &all);
        let count = Count { acknowledged: Mutex::new(0), changed: Condvar::new() };
        let ended = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|name| {
                    let (client, count, ended) = (notes.client(), &count, &ended);
                    scope.spawn(move || {
                        let known = write(client, name, count);
                        ended.fetch_add(1, Ordering::Relaxed);
                        known
                    })
                })
                .collect();
            let guard = count.acknowledged.lock().expect("no panic");
            drop(count.changed.wait_while(guard, |count| *count < kill_after).expect("no panic"));
            assert_eq!(ended.load(Ordering::Relaxed), 0, "all of them write");
            notes.kill();
            for writer in writers {
                let known = writer.join().expect("no panic");
                all.extend(known.titles.into_iter().filter(|(id, _)| Some(*id) != known.in_doubt));
            }
        });
        kills += 1;
    }
    let notes = Notes::start(&folder, &[]);
    check(&notes, &all);
    assert!(kills == 29 && all.len() > 800, "{kills} kills, {} notes", all.len());
}

/// Everything that was acknowledged is as it was acknowledged.
fn check(notes: &Notes, all: &BTreeMap<i64, Option<String>>) {
    let mut client = notes.client();
    // In a row, without waiting for each.
    for ids in all.iter().collect::<Vec<_>>().chunks(100) {
        client.send(ids.iter().map(|(id, _)| request("GET", &format!("/api/notes/{id}"), "", "")).collect::<String>());
        for (id, title) in ids {
            let answer = client.answer();
            match title {
                Some(title) => assert_eq!(answer.json()["title"], title.as_str(), "note {id}"),
                None => assert_eq!(answer.status, 404, "note {id} was deleted"),
            }
        }
    }
}
