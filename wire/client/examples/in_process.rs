//! A whole cluster inside a test, and the native client talking to it.
//!
//! ```sh
//! cargo run -p evenkeel-client --example in_process
//! ```
//!
//! The cluster is the real one: storage cores with logs on a temporary folder, MemDS servers and a router on
//! loopback. It ends, and its folder goes, when the value is dropped. In a project of your own, make
//! `evenkeel` a dev-dependency and put the body of `main` into a `#[test]`.

use evenkeel::local::Cluster;
use evenkeel_client::{Client, Error, ErrorCode, Item, KeyType};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = Cluster::temporary()?;
    let client = Client::builder().endpoint(cluster.endpoint()).connect()?;

    client
        .create_table("scores")
        .partition_key("player", KeyType::S)
        .sort_key("round", KeyType::N)
        .wait_until_active()
        .send()?;

    for round in 1..=5 {
        let score = Item::new().with("player", "ada").with("round", round).with("points", round * 10);
        client.put("scores", score).send()?;
    }

    // The same round twice is an error that a program can tell from others.
    let again = Item::new().with("player", "ada").with("round", 1);
    let put = client.put("scores", again).condition("attribute_not_exists(player)").send();
    assert_eq!(put.unwrap_err().code(), Some(ErrorCode::ConditionFailed));

    let key = Item::new().with("player", "ada").with("round", 5);
    client.update("scores", key.clone()).expression("ADD points :more").value(":more", 1).send()?;
    let item = client.get("scores", key).send()?.item.ok_or("the item is there")?;
    assert_eq!(item.get("points"), Some(&51.into()));

    let query = client.query("scores").key_condition("player = :player AND #round >= :first");
    let best = query.name("#round", "round").value(":player", "ada").value(":first", 3).backward();
    let rounds: Vec<Item> = best.items().collect::<Result<_, Error>>()?;
    assert_eq!(rounds.len(), 3);
    assert_eq!(rounds[0].get("round"), Some(&5.into()));

    println!("{} rounds from {}", rounds.len(), cluster.endpoint());
    Ok(())
}
