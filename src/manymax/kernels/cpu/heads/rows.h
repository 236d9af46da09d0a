// A call's rows, one for each class, as products read them, and the memory that follows.
#pragma once

#include "room.h"

namespace manymax::MANYMAX_ISA {

template <class S, class E>
class ClassRows {
  static constexpr int64_t kEntries = ElementOf<E>::kEntries, kBytes = sizeof(S);

 public:
  ClassRows(const LossCall& call, const LossSizes<E>& sizes) : call_(call), z_(sizes) {}

  Stretch<S> of(const ClassBlock& at, int64_t d, int64_t dim) const {
    return {static_cast<const S*>(call_.rows) + at.first * call_.rows_step + d, call_.rows_step, at.count, dim};
  }

  // Part `index` of `parts` of the rows behind a block, which come next from memory; nothing behind the last.
  struct Part {
    const char* at;
    int64_t bytes;
  };
  Part behind(const ClassBlock& at, int64_t index, int64_t parts) const {
    const int64_t first = at.first + kClasses<E>, left = call_.classes - first, rows = left < kClasses<E> ? left : kClasses<E>;
    if (rows <= 0) return {nullptr, 0};
    const int64_t bytes = ((rows - 1) * call_.rows_step + call_.dim) * kBytes, each = (bytes + parts - 1) / parts;
    return {static_cast<const char*>(call_.rows) + first * call_.rows_step * kBytes + index * each, each};
  }

  // Rows as the products take them: in memory's own place if they are of that type and the block is whole strips, or else a copy in
  // `room`. The last rows are not, since a strip of the dim may read past their end.
  const E* whole(const ClassBlock& at, E* room, int64_t& step) const {
    if constexpr (sizeof(S) * kEntries == sizeof(E)) {
      const bool inside = call_.dim % kStrip == 0 || at.first + at.count < call_.classes;
      if (inside && at.count % kStrip == 0 && call_.dim % kEntries == 0 && call_.rows_step % kEntries == 0) {
        step = call_.rows_step / kEntries;
        return reinterpret_cast<const E*>(static_cast<const S*>(call_.rows) + at.first * call_.rows_step);
      }
    }
    step = z_.rows_step;
    pack_rows(of(at, 0, call_.dim), round_up(at.count, kStrip), step * kEntries, 1, room);
    return room;
  }

 private:
  const LossCall& call_;
  const LossSizes<E>& z_;
};

}  // namespace manymax::MANYMAX_ISA
