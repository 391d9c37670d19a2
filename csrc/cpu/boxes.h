// Boxes: maxima over regions of images, and which of overlapping boxes stay.
#pragma once

#include <cstdint>

namespace pycnn::cpu {

using std::int64_t;

// Maxima over windows of regions: window (p, q) of region r covers, in image[r], the rows [rows[r, p, 0], rows[r, p, 1])
// and the columns alike.
struct Regions {
    int64_t count, P, Q;
    int64_t images, channels, H, W;
    const int64_t *image, *rows, *columns;
};

// y[r, c, p, q] and where it was found, h*W + w: the first maximum in scan order; 0 and -1 where a window is empty.
template <typename T>
void roi_max(const Regions& regions, const T* x, T* y, int64_t* indices);

// keep[i] = 1 for each of `count` boxes (x1, y1, x2, y2), best first, unless one before it that is kept and of its group
// overlaps it by more than `threshold`: the area of the intersection over that of the union.  `groups` may be null.
template <typename T>
void nms(int64_t count, const T* boxes, const int64_t* groups, double threshold, int64_t* keep);

}  // namespace pycnn::cpu
