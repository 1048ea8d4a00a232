"""Values for examples in the API's description that can be sent as they are."""

from typing import Final

#: a blue square with a yellow disc, 64 x 64
PICTURE: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAABlBMVEVGbr"
    "TmvlqU49eRAAAAcklEQVR42s3QsQ3CMBSE4c/PSKRkBDYhbO4RGCEjuIwQiilMCgsKyvzV6e6e9HQcj3"
    "P9iNuGjCWlIkjMvdJaJZiYiP00uHAiuBJjNJNGp5MpSOU7+kdkzNx/dwptdBY2gsprjFZWgicPgtZ/29"
    "cY9jkAb7FqFwcNkzldAAAAAElFTkSuQmCC"
)
