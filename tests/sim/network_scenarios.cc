#include "network_scenarios.h"

#include <utility>

namespace weir {
namespace {

using Ids = std::vector<std::uint32_t>;

class Builder {
 public:
  Builder(std::string name, std::string what) {
    made_.name = std::move(name);
    made_.what = std::move(what);
  }

  std::uint32_t host(ScenarioHost host = {}) { return add(made_.hosts, host); }
  void hosts(int count, ScenarioHost each = {}) {
    for (int i = 0; i < count; ++i) host(each);
  }
  std::uint32_t link(double bytes_per_s, double latency_s = 0) {
    return add(made_.links, ScenarioLink{.bytes_per_s = bytes_per_s, .latency_s = latency_s});
  }
  std::uint32_t route(std::uint32_t from, std::uint32_t to, Ids links) {
    return add(made_.routes, ScenarioRoute{.from = from, .to = to, .links = std::move(links)});
  }
  std::uint32_t compute(std::uint32_t host, std::int64_t flops, Ids waits = {}) {
    return add(
        made_.activities,
        ScenarioActivity{.host = host, .route = {}, .amount = flops, .waits = std::move(waits)});
  }
  std::uint32_t send(std::uint32_t route, std::int64_t bytes, Ids waits = {}) {
    return add(
        made_.activities,
        ScenarioActivity{.host = {}, .route = route, .amount = bytes, .waits = std::move(waits)});
  }
  // A port out and a port in for each of the hosts there are; routes between all of them, over what
  // `between` lists. route_of finds them.
  void switched(double bytes_per_s, double latency_s, const Ids& between = {}) {
    const auto n = static_cast<std::uint32_t>(made_.hosts.size());
    const auto first = static_cast<std::uint32_t>(made_.links.size());
    for (std::uint32_t i = 0; i < 2 * n; ++i) link(bytes_per_s, latency_s);
    for (std::uint32_t from = 0; from < n; ++from) {
      for (std::uint32_t to = 0; to < n; ++to) {
        if (from == to) continue;
        Ids links = {first + 2 * from};
        links.insert(links.end(), between.begin(), between.end());
        links.push_back(first + 2 * to + 1);
        route(from, to, std::move(links));
      }
    }
  }
  [[nodiscard]] std::uint32_t route_of(std::uint32_t from, std::uint32_t to) const {
    std::uint32_t i = 0;
    while (made_.routes[i].from != from || made_.routes[i].to != to) ++i;
    return i;
  }
  std::uint32_t send(std::pair<std::uint32_t, std::uint32_t> hosts, std::int64_t bytes,
                     Ids waits = {}) {
    return send(route_of(hosts.first, hosts.second), bytes, std::move(waits));
  }
  Scenario done() { return std::move(made_); }

 private:
  template <class T>
  static std::uint32_t add(std::vector<T>& list, T item) {
    list.push_back(std::move(item));
    return static_cast<std::uint32_t>(list.size() - 1);
  }
  Scenario made_;
};

// 2(n-1) steps, in each of which every host sends a part to the next.
void add_ring(Builder& b, std::uint32_t n, std::int64_t part) {
  Ids last;
  for (std::uint32_t step = 0; step < 2 * (n - 1); ++step) {
    Ids next;
    for (std::uint32_t i = 0; i < n; ++i) {
      Ids waits;
      if (step > 0) waits = {last[i], last[(i + n - 1) % n]};
      next.push_back(b.send({i, (i + 1) % n}, part, std::move(waits)));
    }
    last = std::move(next);
  }
}

Scenario ring() {
  Builder b("ring", "all_reduce of 4 hosts in a ring over a switch");
  b.hosts(4);
  b.switched(1e9, 1e-5);
  add_ring(b, 4, 25'000'000);
  return b.done();
}

Scenario slow_link() {
  Builder b("slow_link", "the same ring with one link at a third of the rate");
  b.hosts(4);
  for (std::uint32_t i = 0; i < 4; ++i)
    b.route(i, (i + 1) % 4, {b.link(i == 2 ? 1e9 / 3 : 1e9, 2e-5)});
  add_ring(b, 4, 25'000'000);
  return b.done();
}

Scenario tree() {
  Builder b("tree",
            "broadcast of 7 hosts down a binary tree; both children share the parent's port");
  b.hosts(7);
  b.switched(2e9, 5e-6);
  Ids arrival(7);
  for (std::uint32_t i = 1; i < 7; ++i) {
    const std::uint32_t parent = (i - 1) / 2;
    arrival[i] = b.send({parent, i}, 100'000'000, parent == 0 ? Ids{} : Ids{arrival[parent]});
  }
  return b.done();
}

Scenario shared_uplink() {
  Builder b("shared_uplink", "4 messages of different sizes meet on one uplink");
  b.hosts(8);
  const std::uint32_t uplink = b.link(1e9, 1e-5);
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::uint32_t own = b.link(8e8, 1e-5);
    b.send(b.route(i, i + 4, {own, uplink}), 50'000'000 * (i + 1));
  }
  return b.done();
}

Scenario all_to_all() {
  Builder b("all_to_all", "5 hosts send every other one a part of its own size, all at once");
  b.hosts(5);
  b.switched(1e9, 1e-5);
  for (std::uint32_t from = 0; from < 5; ++from) {
    for (std::uint32_t to = 0; to < 5; ++to) {
      if (from != to) b.send({from, to}, 10'000'000 + 3'000'000 * from + 7'000'000 * to);
    }
  }
  return b.done();
}

Scenario pipeline() {
  Builder b("pipeline", "3 microbatches through 4 stages that compute and send on");
  b.hosts(4);
  b.switched(1e9, 2e-5);
  std::vector<Ids> computed(4);
  Ids arrived(3);
  for (std::uint32_t stage = 0; stage < 4; ++stage) {
    for (std::uint32_t m = 0; m < 3; ++m) {
      Ids waits;
      if (stage > 0) waits.push_back(arrived[m]);
      if (m > 0) waits.push_back(computed[stage].back());
      computed[stage].push_back(b.compute(stage, 100'000'000 + 40'000'000 * stage, waits));
      if (stage == 3) continue;
      Ids sent = {computed[stage].back()};
      if (m > 0) sent.push_back(arrived[m - 1]);
      arrived[m] = b.send({stage, stage + 1}, 60'000'000, sent);
    }
  }
  return b.done();
}

Scenario energy() {
  Builder b("energy", "hosts of different power compute for different times, then rest");
  b.host({.flops_per_s = 1e9, .idle_watts = 90, .busy_watts = 250});
  b.host({.flops_per_s = 3e9, .idle_watts = 40, .busy_watts = 700});
  b.host({.flops_per_s = 2e9, .idle_watts = 15, .busy_watts = 15});
  b.switched(1e9, 1e-5);
  const std::uint32_t first = b.compute(0, 1'300'000'000);
  const std::uint32_t second = b.compute(1, 2'100'000'000);
  const std::uint32_t sent = b.send({0, 1}, 200'000'000, {first});
  b.compute(1, 900'000'000, {second, sent});
  b.compute(2, 500'000'000);
  return b.done();
}

Scenario idle_energy() {
  Builder b("idle_energy", "a host that never computes rests until the others are done");
  b.host({.flops_per_s = 1e9, .idle_watts = 55, .busy_watts = 400});
  b.host({.flops_per_s = 1e9, .idle_watts = 120, .busy_watts = 480});
  b.switched(1e8, 1e-4);
  const std::uint32_t sent = b.send({0, 1}, 40'000'000);
  b.compute(1, 750'000'000, {sent});
  return b.done();
}

Scenario mixed() {
  Builder b("mixed", "layers of computing behind which the last layer's messages go on");
  b.hosts(2);
  b.switched(5e8, 1e-5);
  Ids computed(2);
  for (int layer = 0; layer < 4; ++layer) {
    for (std::uint32_t h = 0; h < 2; ++h) {
      Ids waits;
      if (layer > 0) waits = {computed[h]};
      computed[h] = b.compute(h, 200'000'000 + 150'000'000 * h, waits);
    }
    for (std::uint32_t h = 0; h < 2; ++h) b.send({h, 1 - h}, 120'000'000, {computed[h]});
  }
  return b.done();
}

Scenario staggered() {
  Builder b("staggered",
            "messages join a link one after the other and leave it at their own times");
  b.hosts(10);
  const std::uint32_t shared = b.link(1e9, 1e-5);
  for (std::uint32_t i = 0; i < 5; ++i) {
    const std::uint32_t begun = b.compute(i, 70'000'000 * i + 1'000'000);
    b.send(b.route(i, i + 5, {shared}), 200'000'000 - 30'000'000 * i, {begun});
  }
  return b.done();
}

Scenario two_hops() {
  Builder b("two_hops", "one message over three links against one on each (parking lot)");
  b.hosts(8);
  const Ids links = {b.link(1e9), b.link(1e9), b.link(1e9)};
  b.send(b.route(0, 1, links), 100'000'000);
  for (std::uint32_t i = 0; i < 3; ++i)
    b.send(b.route(2 + 2 * i, 3 + 2 * i, {links[i]}), 150'000'000 + 50'000'000 * i);
  return b.done();
}

Scenario held_up_elsewhere() {
  Builder b("held_up_elsewhere", "who is held up on one link leaves more of another");
  b.hosts(8);
  const std::uint32_t narrow = b.link(1e9);
  const std::uint32_t wide = b.link(15e8);
  b.send(b.route(0, 1, {narrow}), 90'000'000);
  b.send(b.route(2, 3, {narrow}), 120'000'000);
  b.send(b.route(4, 5, {narrow, wide}), 300'000'000);
  b.send(b.route(6, 7, {wide}), 600'000'000);
  return b.done();
}

Scenario bus() {
  Builder b("bus", "6 hosts in pairs over ports and a bus that carries two of them at full rate");
  b.hosts(6);
  b.switched(1e9, 1e-6, {b.link(2e9, 1e-6)});
  for (std::uint32_t i = 0; i < 6; ++i) {
    const std::uint32_t first = b.send({i, (i + 1) % 6}, 40'000'000 + 9'000'000 * i);
    b.send({i, (i + 1) % 6}, 25'000'000, {first});
  }
  return b.done();
}

Scenario incast() {
  Builder b("incast", "gather: 6 hosts send to one, each when it has computed its part");
  b.hosts(7);
  b.switched(1e9, 3e-6);
  for (std::uint32_t i = 1; i < 7; ++i)
    b.send({i, 0}, 30'000'000 * i, {b.compute(i, 10'000'000 * (7 - i))});
  return b.done();
}

Scenario hierarchical() {
  Builder b("hierarchical",
            "reduce within two nodes of 3, exchange over a card each, send back out");
  b.hosts(6);
  const auto leader = [](std::uint32_t node) { return 3 * node; };
  Ids sums(2);
  std::vector<Ids> gathered(2);
  for (std::uint32_t node = 0; node < 2; ++node) {
    for (std::uint32_t i = 1; i < 3; ++i) {
      const std::uint32_t member = leader(node) + i;
      const std::uint32_t in = b.link(10e9, 1e-6);
      b.route(member, leader(node), {in});
      b.route(leader(node), member, {b.link(10e9, 1e-6)});
      gathered[node].push_back(b.send({member, leader(node)}, 80'000'000));
    }
    sums[node] = b.compute(leader(node), 20'000'000 + 5'000'000 * node, gathered[node]);
  }
  b.route(0, 3, {b.link(1e9, 1e-5), b.link(1e9, 1e-5)});
  b.route(3, 0, {b.link(1e9, 1e-5), b.link(1e9, 1e-5)});
  const Ids crossed = {b.send({3, 0}, 80'000'000, {sums[1]}),
                       b.send({0, 3}, 80'000'000, {sums[0]})};
  for (std::uint32_t node = 0; node < 2; ++node) {
    for (std::uint32_t i = 1; i < 3; ++i)
      b.send({leader(node), leader(node) + i}, 80'000'000, {crossed[node], sums[node]});
  }
  return b.done();
}

Scenario fat_tree() {
  Builder b("fat_tree", "two leaves of 4 hosts, oversubscribed 2 to 1: every host to its opposite");
  b.hosts(8);
  const Ids up = {b.link(2e9, 1e-6), b.link(2e9, 1e-6)};
  const Ids down = {b.link(2e9, 1e-6), b.link(2e9, 1e-6)};
  for (std::uint32_t i = 0; i < 8; ++i) {
    const std::uint32_t leaf = i / 4;
    const Ids links = {b.link(1e9, 1e-6), up[leaf], down[1 - leaf], b.link(1e9, 1e-6)};
    const std::uint32_t route = b.route(i, (i + 4) % 8, links);
    b.send(route, 100'000'000 + 20'000'000 * (i % 4), {b.send(route, 10'000'000)});
  }
  return b.done();
}

Scenario latency() {
  Builder b("latency", "a chain of 20 short messages, for which latency is nearly all");
  b.hosts(2);
  b.switched(1e9, 5e-4);
  std::uint32_t last = b.send({0, 1}, 1000);
  for (std::uint32_t i = 1; i < 20; ++i) last = b.send({i % 2, 1 - i % 2}, 1000, {last});
  return b.done();
}

}  // namespace

std::vector<Scenario> network_scenarios() {
  return {
      ring(),   slow_link(),   tree(),         shared_uplink(), all_to_all(), pipeline(),
      energy(), idle_energy(), mixed(),        staggered(),     two_hops(),   held_up_elsewhere(),
      bus(),    incast(),      hierarchical(), fat_tree(),      latency()};
}

}  // namespace weir
