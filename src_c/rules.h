/* The update rules: name, and what becomes of element i of w and of its state m and v. g is its
   gradient; the factors are those of update_args. */
#ifndef FASTRNN_RULES_H
#define FASTRNN_RULES_H

#define FASTRNN_UPDATE_RULES(X)                                                             \
    X(sgd, out[i] = keep * w[i] - rate * g)                                                 \
    X(sgd_momentum, m[i] = decay_m * m[i] - rate * g; out[i] = keep * w[i] + m[i])          \
    X(rmsprop, v[i] = decay_v * v[i] + gain_v * (g * g);                                    \
      out[i] = keep * w[i] - rate * g / (SQRT(v[i]) + epsilon))                             \
    X(adam, m[i] = decay_m * m[i] + gain_m * g; v[i] = decay_v * v[i] + gain_v * (g * g);   \
      out[i] = keep * w[i] - rate * (m[i] / (SQRT(v[i] * correct_v) + epsilon)))

#endif
