from sdapi.portrait import faults


def test_the_texts_are_those_of_the_documents_misspelt_or_not():
    fault = faults.NOT_TRAINED
    assert fault.message(is_corrected=False) == (
        "Roop image decord error. Pleace check the user's lora is trained or not."
    )
    assert fault.message(is_corrected=True) == (
        "Roop image decode error. Please check the user's lora is trained or not."
    )
    assert faults.NO_FACE.message(is_corrected=True) == faults.NO_FACE.text
