"""What all code stands on: the array library of a call, its fused implementations, shapes, values and errors.

| file     | what                                                                                    |
|----------|-----------------------------------------------------------------------------------------|
| library  | namespace, device and dtype of arrays; conversion; products that every library can do   |
| dispatch | `@dispatched`: sends a call to the framework's own implementation, where there is one   |
| errors   | the exceptions, and the four parts of their messages                                    |
| shapes   | the letters that stand for sizes, broadcasting                                          |
| values   | checks of values, where they can be read                                                |
| report   | `show_backends`: what is installed and what is active                                   |
"""
