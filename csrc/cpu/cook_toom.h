// The transform matrices of Winograd's F(m, r), computed while compiling; pycnn/winograd.py derives the same in exact
// fractions and says how, and a test compares the two.
#pragma once

namespace pycnn::cpu {

template <int ROWS, int COLUMNS>
struct Matrix {
    static constexpr int kRows = ROWS;
    static constexpr int kColumns = COLUMNS;
    double at[ROWS][COLUMNS] = {};
};

constexpr double kWinogradPoints[] = {0, 1, -1, 2, -2, 0.5, -0.5};

// y = AT [(G g) * (BT d)]: m outputs, r taps, m + r - 1 inputs.  Points come in pairs p, -p after the 0, and the last
// one is infinity.
template <int M, int R>
struct CookToom {
    static constexpr int kSize = M + R - 1;

    // Coefficients of the product of x - p over the finite points but `without`.
    struct Polynomial {
        double c[kSize + 1] = {};
        constexpr explicit Polynomial(int without) {
            c[0] = 1;
            for (int k = 0; k < kSize - 1; k++) {
                if (k == without) continue;
                for (int i = kSize; i > 0; i--) c[i] = c[i - 1] - kWinogradPoints[k] * c[i];
                c[0] *= -kWinogradPoints[k];
            }
        }
        constexpr double operator()(double x) const {
            double value = 0;
            for (int i = kSize; i >= 0; i--) value = value * x + c[i];
            return value;
        }
    };

    static constexpr double sign(int i) { return i == 0 && Polynomial(0)(kWinogradPoints[0]) < 0 ? -1 : 1; }

    static constexpr Matrix<kSize, kSize> make_bt() {
        Matrix<kSize, kSize> bt;
        for (int i = 0; i < kSize; i++) {
            const Polynomial row(i < kSize - 1 ? i : -1);
            for (int j = 0; j < kSize; j++) bt.at[i][j] = i < kSize - 1 ? sign(i) * row.c[j] : row.c[j];
        }
        return bt;
    }

    static constexpr Matrix<kSize, R> make_g() {
        Matrix<kSize, R> g;
        for (int i = 0; i < kSize - 1; i++) {
            double power = 1;
            for (int j = 0; j < R; j++) {
                g.at[i][j] = power / (sign(i) * Polynomial(i)(kWinogradPoints[i]));
                power *= kWinogradPoints[i];
            }
        }
        g.at[kSize - 1][R - 1] = 1;
        return g;
    }

    static constexpr Matrix<M, kSize> make_at() {
        Matrix<M, kSize> at;
        for (int j = 0; j < kSize - 1; j++) {
            double power = 1;
            for (int i = 0; i < M; i++) {
                at.at[i][j] = power;
                power *= kWinogradPoints[j];
            }
        }
        at.at[M - 1][kSize - 1] = 1;
        return at;
    }

    static constexpr Matrix<kSize, kSize> BT = make_bt();
    static constexpr Matrix<kSize, R> G = make_g();
    static constexpr Matrix<M, kSize> AT = make_at();
};

}  // namespace pycnn::cpu
